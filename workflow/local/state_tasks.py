"""Task states of the local Step Functions: the SageMaker integration that moto lacks, and AWS's ways in the others.

The interpreter is moto's. Here are one task service (`sagemaker:*`, with createTrainingJob.sync) and the changes to
the existing ones: fields that an integration does not know fail instead of being dropped, parameters are checked by
botocore's models, and errors carry AWS's names.
Source: Step Functions Developer Guide, "Integrating ... SageMaker", "Handling errors" and "AWS SDK integrations",
Nov 2026; the generic names (`SageMaker.AmazonSageMakerException`, `Lambda.AWSLambdaException`) from public reports.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from moto.stepfunctions.parser.api import (
    HistoryEventExecutionDataDetails,
    HistoryEventType,
    TaskFailedEventDetails,
    TaskSubmittedEventDetails,
)
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import (
    FailureEvent,
    FailureEventException,
)
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service as service_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk as aws_sdk_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_dynamodb as dynamodb_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_lambda as lambda_module,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.state_task import StateTask
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.utils.encoding import to_json_str

from workflow.local import in_process
from workflow.local.authorization import replace
from workflow.local.faults import STATE_HEADER
from workflow.local.task_values import input_shape, operation, pascal, plain, renamed, without_metadata

if TYPE_CHECKING:
    from workflow.local.engine import Engine

_SERVICE = "moto.stepfunctions.parser.asl.component.state.exec.state_task.service"
HOOKS: tuple[str, ...] = (
    f"{_SERVICE}.state_task_service.StateTaskService._SERVICE_NAME_SFN_TO_BOTO_OVERRIDES",
    f"{_SERVICE}.state_task_service.StateTaskService._get_supported_parameters",
    f"{_SERVICE}.state_task_service.StateTaskService._after_eval_execution",
    f"{_SERVICE}.state_task_service_aws_sdk._SERVICE_ERROR_NAMES",
    f"{_SERVICE}.state_task_service_aws_sdk.StateTaskServiceAwsSdk._eval_service_task",
    f"{_SERVICE}.state_task_service_aws_sdk.StateTaskServiceAwsSdk._get_task_failure_event",
    f"{_SERVICE}.state_task_service_aws_sdk.StateTaskServiceAwsSdk._normalise_parameters",
    f"{_SERVICE}.state_task_service_dynamodb.StateTaskServiceDynamoDB._error_cause_from_client_error",
    f"{_SERVICE}.state_task_service_dynamodb.StateTaskServiceDynamoDB._from_error",
    f"{_SERVICE}.state_task_service_lambda.StateTaskServiceLambda._error_cause_from_client_error",
    f"{_SERVICE}.state_task_service_lambda._SUPPORTED_API_PARAM_BINDINGS",
    "moto.stepfunctions.parser.asl.component.state.exec.state_task.state_task.StateTask._eval_parameters",
    "moto.stepfunctions.parser.asl.component.state.exec.state_task.state_task.StateTask._from_error",
)

_BOTO_NAMES = {
    "applicationautoscaling": "application-autoscaling",
    "sagemakerruntime": "sagemaker-runtime",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
}
_ERROR_PREFIXES = {
    "sagemaker": "SageMaker",
    "sagemakerruntime": "SageMakerRuntime",
    "applicationautoscaling": "ApplicationAutoScaling",
    "cloudwatch": "CloudWatch",
    "cloudwatchlogs": "CloudWatchLogs",
    "eventbridge": "EventBridge",
    "lambda": "Lambda",
    "s3": "S3",
    "sns": "Sns",
    "kms": "Kms",
    "ssm": "Ssm",
}
_POLL_SECONDS = 0.25
_RETRIED_BY_POLLING = ("ThrottlingException", "Throttling")


def boto_name(service: str) -> str:
    """Botocore's name of a service that is named as in an integration's ARN."""
    overrides: dict[str, str] = service_module.StateTaskService._SERVICE_NAME_SFN_TO_BOTO_OVERRIDES
    return _BOTO_NAMES.get(service, overrides.get(service, service))


def install(engine: Engine) -> None:
    """Give moto's task services the names, checks and errors of AWS; `SageMakerTask` the account's clients."""
    SageMakerTask.engine = engine
    service_module.StateTaskService._SERVICE_NAME_SFN_TO_BOTO_OVERRIDES.update(_BOTO_NAMES)
    aws_sdk_module._SERVICE_ERROR_NAMES.update(_ERROR_PREFIXES)
    lambda_module._SUPPORTED_API_PARAM_BINDINGS["invoke"].add("InvocationType")
    aws_sdk, dynamodb = aws_sdk_module.StateTaskServiceAwsSdk, dynamodb_module.StateTaskServiceDynamoDB
    replace(service_module.StateTaskService, "_after_eval_execution", _report_success)
    replace(aws_sdk, "_normalise_parameters", _to_api_parameters)
    replace(aws_sdk, "_eval_service_task", _eval_aws_sdk_task)
    replace(aws_sdk, "_get_task_failure_event", _aws_sdk_failure)
    replace(lambda_module.StateTaskServiceLambda, "_error_cause_from_client_error", staticmethod(_lambda_error))
    replace(dynamodb, "_error_cause_from_client_error", staticmethod(_dynamodb_error))
    replace(dynamodb, "_from_error", _dynamodb_from_error)
    replace(StateTask, "_eval_parameters", _eval_parameters)
    replace(StateTask, "_from_error", _task_from_error)


class SageMakerTask(service_module.StateTaskService):
    """`arn:aws:states:::sagemaker:...`: request-response calls, and createTrainingJob.sync by polling."""

    engine: ClassVar[Engine]

    _ACTIONS = ("createTrainingJob", "createModel", "createEndpointConfig", "createEndpoint", "updateEndpoint")
    _SYNC_ACTIONS = ("createTrainingJob",)

    def _get_sfn_resource(self) -> str:
        action: str = self.resource.api_action
        return f"{action}.{self.resource.condition}" if self.resource.condition else action

    def _get_supported_parameters(self) -> set[str] | None:
        action = self.resource.api_action
        if action not in (self._SYNC_ACTIONS if self.resource.condition else self._ACTIONS):
            return None
        if self.resource.condition not in (None, "sync"):
            return None
        return set(input_shape("sagemaker", action).members)

    def _client(self, state_credentials: Any) -> Any:
        return client_of(self.engine, "sagemaker", state_credentials.role_arn)

    def _eval_service_task(  # type: ignore[override] # moto passes all by name
        self, env: Any, *, normalised_parameters: Any, state_credentials: Any, **_: Any
    ) -> None:
        if self.resource.api_action.startswith("create"):
            # Step Functions tags what it creates, so the role needs sagemaker:AddTags (aws/aws-cdk#26012).
            tag = {"Key": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"}
            normalised_parameters["Tags"] = [*normalised_parameters.get("Tags", []), tag]
        call = getattr(self._client(state_credentials), self._get_boto_service_action())
        env.stack.append(plain(without_metadata(call(**normalised_parameters))))

    def _after_eval_execution(
        self, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> None:
        if self.resource.condition:
            self._add_submitted_event(env)
            env.stack[-1] = self._follow(env, normalised_parameters["TrainingJobName"], state_credentials)
        super()._after_eval_execution(
            env=env,
            resource_runtime_part=resource_runtime_part,
            normalised_parameters=normalised_parameters,
            state_credentials=state_credentials,
        )

    def _add_submitted_event(self, env: Any) -> None:
        details = TaskSubmittedEventDetails(
            resource=self._get_sfn_resource(),
            resourceType=self._get_sfn_resource_type(),
            output=to_json_str(env.stack[-1]),
            outputDetails=HistoryEventExecutionDataDetails(truncated=False),
        )
        env.event_manager.add_event(
            context=env.event_history_context,
            event_type=HistoryEventType.TaskSubmitted,
            event_details=cast(EventDetails, {"taskSubmittedEventDetails": details}),
        )

    def _follow(self, env: Any, job_name: str, state_credentials: Any) -> Any:
        """Wait until the training job ends; stop it when this state does not run any more."""
        client = self._client(state_credentials)
        while env.is_running():
            try:
                job = plain(without_metadata(client.describe_training_job(TrainingJobName=job_name)))
            except ClientError as error:
                if error.response["Error"]["Code"] not in _RETRIED_BY_POLLING:
                    raise
                job = {"TrainingJobStatus": "InProgress"}
            status = job["TrainingJobStatus"]
            if status == "Completed" or (status == "Stopped" and not self.engine.faults.undocumented.stopped_fails):
                return job
            if status in ("Failed", "Stopped"):
                name = StatesErrorName(typ=StatesErrorNameType.StatesTaskFailed)
                raise FailureEventException(_failure(self, env, name, json.dumps(job)))
            self.engine.endings.wait(job_name, _POLL_SECONDS)
        with suppress(ClientError):  # it may have ended meanwhile
            client.stop_training_job(TrainingJobName=job_name)
        return None

    def _from_error(self, env: Any, ex: Exception) -> Any:
        if isinstance(ex, ClientError):
            name = f"SageMaker.{_modelled_name(ex) or 'AmazonSageMakerException'}"
            return _failure(self, env, CustomErrorName(_as_played(name)), _java_cause(ex, "AmazonSageMaker"))
        return super()._from_error(env=env, ex=ex)


def client_of(engine: Engine, service: str, role_arn: str) -> Any:
    """A client of the state machine's role; one attempt, for the definition's Retry must see every error."""

    def prepare(client: Any) -> None:
        client.meta.events.register("before-sign", _name_state, unique_id=STATE_HEADER)
        in_process.connect(client, engine)

    return engine.identity.client(service, role_arn, "states.amazonaws.com", max_attempts=1, prepare=prepare)


_original_report_success = service_module.StateTaskService._after_eval_execution


def _report_success(self: Any, env: Any, *arguments: Any, **named: Any) -> None:
    """What is answered after the Task has timed out, or the execution was stopped, is no success to report."""
    if env.is_running():
        _original_report_success(self, env, *arguments, **named)


_evaluated = threading.local()
"""`state`: the name of the Task that this thread evaluates."""


def _name_state(request: Any, **_: Any) -> None:
    """Let the door know which state sends the request: a fault may be meant for one state only."""
    state = getattr(_evaluated, "state", "")
    if state:
        request.headers[STATE_HEADER] = quote(state)


def _as_played(error_name: str) -> str:
    """SageMaker's generic error in the spelling that the local cloud plays."""
    names = ("SageMaker.AmazonSageMakerException", "SageMaker.SageMakerException")
    if error_name in names and SageMakerTask.engine.faults.undocumented.swap_generic_errors:
        return names[1 - names.index(error_name)]
    return error_name


def _aws_sdk_failure(self: Any, env: Any, error: str, cause: str) -> FailureEvent:
    return _failure(self, env, CustomErrorName(_as_played(error)), cause)


def _failure(task: Any, env: Any, name: ErrorName, cause: str) -> FailureEvent:
    details = TaskFailedEventDetails(
        error=name.error_name,
        cause=cause,
        resource=task._get_sfn_resource(),
        resourceType=task._get_sfn_resource_type(),
    )
    return FailureEvent(
        env=env,
        error_name=name,
        event_type=HistoryEventType.TaskFailed,
        event_details=cast(EventDetails, {"taskFailedEventDetails": details}),
    )


def _modelled_name(error: ClientError) -> str | None:
    """The exception's name if the service models it, else None: all others share the service's generic name."""
    name = type(error).__name__
    return None if name == "ClientError" else name if name.endswith("Exception") else f"{name}Exception"


def _java_cause(error: ClientError, service: str) -> str:
    """The text that the optimised integrations give."""
    metadata = error.response["ResponseMetadata"]
    return (
        f"{error.response['Error'].get('Message', '')} (Service: {service}; Status Code: {metadata['HTTPStatusCode']}; "
        f"Error Code: {error.response['Error']['Code']}; Request ID: {metadata.get('RequestId', '')}; Proxy: null)"
    )


def _lambda_error(error: ClientError) -> tuple[str, str]:
    return f"Lambda.{_modelled_name(error) or 'AWSLambdaException'}", _java_cause(error, "AWSLambda")


def _dynamodb_error(error: ClientError) -> tuple[str, str]:
    name = _modelled_name(error) or "AmazonDynamoDBException"
    return f"DynamoDB.{name}", _java_cause(error, "AmazonDynamoDBv2")


_original_dynamodb_from_error = dynamodb_module.StateTaskServiceDynamoDB._from_error
_original_task_from_error = StateTask._from_error


def _dynamodb_from_error(self: Any, env: Any, ex: Exception) -> Any:
    if isinstance(ex, ClientError):
        return _original_dynamodb_from_error(self, env, ex)
    return StateTask._from_error(self, env=env, ex=ex)


def _task_from_error(self: Any, env: Any, ex: Exception) -> Any:
    """No answer at all is the SDK's error and may be retried; parameters that do not fit are States.Runtime."""
    if isinstance(ex, BotoCoreError) and not isinstance(ex, ParamValidationError):
        prefix = _ERROR_PREFIXES.get(self.resource.api_name.lower(), self.resource.api_name)
        return _failure(self, env, CustomErrorName(f"{prefix}.SdkClientException"), str(ex))
    return _original_task_from_error(self, env=env, ex=ex)


def _eval_parameters(self: Any, env: Any) -> Any:
    """moto drops what an integration does not support; AWS refuses it."""
    _evaluated.state = self.name
    parameters: dict[str, Any] = {}
    if self.parargs is not None:
        self.parargs.eval(env=env)
        parameters = env.stack.pop()
    supported = self._get_supported_parameters()
    for name in parameters if supported else ():
        if name not in supported:
            raise ValueError(
                f'The field "{name}" is not supported by Step Functions in {self.resource.resource_arn}, '
                f"expected one of {sorted(supported)}"
            )
    return parameters


def _eval_aws_sdk_task(self: Any, env: Any, *, normalised_parameters: Any, state_credentials: Any, **_: Any) -> None:
    """AWS SDK integration: the response's keys in PascalCase, timestamps as ISO 8601 text."""
    service = self._get_boto_service_name()
    client = client_of(SageMakerTask.engine, service, state_credentials.role_arn)
    response = getattr(client, self._get_boto_service_action())(**normalised_parameters) or {}
    shape = operation(service, self.resource.api_action).output_shape
    env.stack.append(plain(renamed(without_metadata(response), shape, pascal), epoch=False))


def _to_api_parameters(self: Any, parameters: dict[str, Any]) -> None:
    """AWS SDK integration: parameters are written in PascalCase, whatever the API's own case."""
    shape = input_shape(self._get_boto_service_name(), self.resource.api_action)
    lower = next((name for name in parameters if name[:1].islower()), None)
    if lower:
        raise ValueError(
            f'The field "{lower}" is not supported by Step Functions in {self.resource.resource_arn}: '
            f'write "{pascal(lower)}"'
        )
    members = renamed(parameters, shape, lambda name: name)
    parameters.clear()
    parameters.update(members)
