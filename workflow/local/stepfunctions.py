"""The local Step Functions: moto's interpreter with the machine's own role, scaled waits, and its gaps filled.

Task services are in state_tasks.py. Here: the clients that tasks use, waits and retry intervals, which errors a
wildcard matches, and the API's answers that moto leaves out.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from jsonpath_ng.ext.parser import parse as parse_path
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_factory
from moto.stepfunctions.parser.asl.component.state.fail import state_fail
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped, ProgramTimedOut
from moto.stepfunctions.parser.asl.utils import json_path
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from workflow.local import authorization, definition_check, definition_parser, machine_versions, state_tasks
from workflow.local.authorization import replace
from workflow.local.identity import AccessDenied, Principal

if TYPE_CHECKING:
    from workflow.local.clock import Clock
    from workflow.local.engine import Engine

_ASL = "moto.stepfunctions.parser.asl"
_TASK = f"{_ASL}.component.state.exec.state_task"
HOOKS: tuple[str, ...] = (
    *definition_check.HOOKS,
    *definition_parser.HOOKS,
    *machine_versions.HOOKS,
    *state_tasks.HOOKS,
    f"{_ASL}.utils.boto_client.boto_client_for",
    f"{_ASL}.utils.json_path.extract_json",
    f"{_ASL}.component.intrinsic.argument.argument.extract_json",
    f"{_ASL}.eval.environment.Environment.set_error",
    f"{_ASL}.eval.states.extract_json",
    f"{_TASK}.lambda_eval_utils.boto_client_for",
    f"{_TASK}.service.state_task_service_aws_sdk.boto_client_for",
    f"{_TASK}.service.state_task_service_dynamodb.boto_client_for",
    f"{_TASK}.service.state_task_service_sns.boto_client_for",
    f"{_TASK}.service.state_task_service_sfn.boto_client_for",
    f"{_TASK}.service.state_task_service_factory.state_task_service_for",
    f"{_TASK}.state_task_factory.state_task_service_for",
    f"{_ASL}.component.common.error_name.error_equals_decl.ErrorEqualsDecl._eval_body",
    f"{_ASL}.component.common.retry.retrier_decl.time",
    f"{_ASL}.component.state.fail.state_fail.CustomErrorName",
    f"{_ASL}.component.state.wait.wait_function.wait_function.WaitFunction._wait_interval",
    "moto.stepfunctions.parser.backend.execution.Execution.get_start_execution_details",
    "moto.stepfunctions.parser.models.StepFunctionsParserBackend.create_state_machine",
    "moto.stepfunctions.parser.models.StepFunctionsParserBackend.update_state_machine",
    "moto.stepfunctions.parser.models.StepFunctionsParserBackend.start_execution",
    "moto.stepfunctions.responses.StepFunctionResponse.describe_execution",
    "moto.stepfunctions.responses.StepFunctionResponse.get_execution_history",
    "moto.stepfunctions.responses.StepFunctionResponse.stop_execution",
)

_PRINCIPAL = "states.amazonaws.com"
_SYNC_RULE = "StepFunctionsGetEventsForSageMakerTrainingJobsRule"
_UNCATCHABLE = (StatesErrorNameType.StatesRuntime, StatesErrorNameType.StatesStatesDataLimitExceeded)
_HISTORY_PAGE = 1000
# Wildcards, descents, filters, slices and unions may find any number of values.
_INDEFINITE_PATH = re.compile(r"\*|\.\.|\?\(|\[[^\]'\"]*[:,]")
_FORBIDDEN_IN_NAMES = set(' <>{}[]?*"#%\\^|~`$&,;:/')  # Source: StartExecution API reference, Nov 2026

_original_service_for = state_task_service_factory.state_task_service_for
_original_extract_json = json_path.extract_json
_original_set_error = Environment.set_error
_original_create = StepFunctionsParserBackend.create_state_machine
_original_update: Any = StepFunctionsParserBackend.update_state_machine
_original_start = StepFunctionsParserBackend.start_execution
_original_details = Execution.get_start_execution_details
_original_describe = StepFunctionResponse.describe_execution


def install(engine: Engine) -> None:
    """Make moto's Step Functions run with this engine's roles and clock."""
    logging.getLogger(_ASL).setLevel(logging.CRITICAL)  # it logs every failed state with its whole definition
    definition_parser.install()
    state_tasks.install(engine)
    _install_clients(engine)
    _install_time(engine.clock)
    _install_errors()
    _install_paths()
    _install_state_machines(engine)
    _install_executions(engine)


def _install_clients(engine: Engine) -> None:
    def client_for(service: str, state_credentials: Any, **_: Any) -> Any:
        return state_tasks.client_of(engine, service, state_credentials.role_arn)

    def service_for(service_name: str) -> Any:
        special: Any = {"sagemaker": state_tasks.SageMakerTask}.get(service_name)
        return special() if special else _original_service_for(service_name)

    _replace_everywhere("boto_client_for", client_for)
    replace(state_task_service_factory, "state_task_service_for", service_for)
    replace(state_task_factory, "state_task_service_for", service_for)


def _replace_everywhere(name: str, value: object) -> None:
    """For what a dozen of the interpreter's modules import by name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(_ASL) and hasattr(module, name):
            replace(module, name, value)


def _install_paths() -> None:
    """moto makes a list of what one definite path such as `$.a[0].b` finds; AWS gives the value itself."""

    def extract_json(path: str, data: Any) -> Any:
        if _INDEFINITE_PATH.search(path):
            return _original_extract_json(path, data)
        found = _parsed_path(path).find(data)
        if not found:
            raise json_path.NoSuchJsonPathError(json_path=path, data=data)
        return found[0].value

    _replace_everywhere("extract_json", extract_json)


@lru_cache(maxsize=2048)
def _parsed_path(path: str) -> Any:
    return parse_path(path)


def _install_time(clock: Clock) -> None:
    """Waits and retry intervals are AWS's seconds divided by the clock; timeouts are of real work and stay."""

    def wait_interval(_self: Any, env: Any, wait_seconds: float) -> None:
        end = time.monotonic() + clock.scaled(wait_seconds)
        while env.is_running() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.1))

    replace(WaitFunction, "_wait_interval", wait_interval)
    replace(retrier_decl, "time", SimpleNamespace(sleep=clock.sleep))


def _install_errors() -> None:
    def eval_error_equals(self: Any, env: Any) -> None:
        """States.ALL and States.TaskFailed do not match what AWS lets nobody catch.

        Source: Step Functions Developer Guide, "Error names", Nov 2026.
        """
        error = env.stack.pop()
        names = {name.error_name for name in self.error_names}
        reserved = isinstance(error, StatesErrorName)
        if reserved and error.typ in _UNCATCHABLE:
            matches = False
        else:
            matches = (
                "States.ALL" in names
                or getattr(error, "error_name", None) in names
                or ("States.TaskFailed" in names and getattr(error, "error_name", None) != "States.Timeout")
            )
        env.stack.append(matches)

    def set_error(self: Any, error: Any) -> None:
        """What fails after the execution was stopped or timed out does not change how it ended."""
        if not isinstance(self.program_state(), ProgramStopped | ProgramTimedOut):
            _original_set_error(self, error)

    replace(ErrorEqualsDecl, "_eval_body", eval_error_equals)
    replace(Environment, "set_error", set_error)
    # A Fail state may repeat a reserved name that a Catch recorded, such as States.TaskFailed.
    replace(state_fail, "CustomErrorName", ErrorName)


def _install_state_machines(engine: Engine) -> None:
    def check(role_arn: str, definition: str) -> None:
        _check_role(engine, role_arn)
        if "sagemaker:createTrainingJob.sync" in definition:
            _check_managed_rule(engine, role_arn)

    def create(self: Any, name: str, definition: str, roleArn: str, **others: Any) -> Any:
        check(roleArn, definition)
        return _original_create(self, name=name, definition=definition, roleArn=roleArn, **others)

    def update(self: Any, arn: str, definition: str | None = None, role_arn: str | None = None, **others: Any) -> Any:
        current = self.describe_state_machine(arn)
        check(role_arn or current.roleArn, definition or current.definition)
        return _original_update(self, arn, definition=definition, role_arn=role_arn, **others)

    replace(StepFunctionsParserBackend, "create_state_machine", create)
    replace(StepFunctionsParserBackend, "update_state_machine", update)


def _check_role(engine: Engine, role_arn: str) -> None:
    try:
        engine.identity.check_trust(role_arn, _PRINCIPAL)
    except AccessDenied as error:
        raise AWSError(str(error), "AccessDeniedException") from None


def _check_managed_rule(engine: Engine, role_arn: str) -> None:
    """AWS refuses a machine with a `.sync` task whose role may not keep the rule that follows the job."""
    principal = Principal(role_arn, role_arn, role_arn.rsplit("/", 1)[-1], "role", secret_access_key="")
    arn = f"arn:{engine.identity.partition}:events:{engine.region}:{engine.account_id}:rule/{_SYNC_RULE}"
    try:
        for action in ("events:PutTargets", "events:PutRule", "events:DescribeRule"):
            authorization.authorize(engine.identity, principal, action, arn, {})
    except authorization.AccessDenied:
        raise AWSError(f"'{role_arn}' is not authorized to create managed-rule.", "AccessDeniedException") from None


def _install_executions(engine: Engine) -> None:
    lock = threading.Lock()

    def start(self: Any, state_machine_arn: str, name: str | None = None, *args: Any, **others: Any) -> Any:
        name = name or str(uuid.uuid4())
        if len(name) > 80 or _FORBIDDEN_IN_NAMES & set(name):
            raise AWSError(f"Invalid Name: '{name}'", "InvalidName")
        version = machine_versions.resolve(self, state_machine_arn)
        _check_role(engine, version.roleArn)
        with lock:  # two requests with one name must find each other
            if version.arn == state_machine_arn:
                return _original_start(self, state_machine_arn, name, *args, **others)
            return machine_versions.start(self, state_machine_arn, version, name, *args, **others)

    def start_details(self: Any) -> Any:
        details: Any = _original_details(self)
        details.start_time = _timestamp(self.start_date)
        return details

    replace(StepFunctionsParserBackend, "start_execution", start)
    replace(Execution, "get_start_execution_details", start_details)
    replace(StepFunctionResponse, "stop_execution", _stop_execution)
    validate = definition_check.validate_state_machine_definition
    replace(StepFunctionResponse, "validate_state_machine_definition", validate)
    replace(StepFunctionResponse, "describe_execution", _describe_execution)
    replace(StepFunctionResponse, "get_execution_history", _get_execution_history)


def _timestamp(instant: datetime.datetime) -> str:
    """As in the context object: 2026-11-21T22:32:00.123Z."""
    return instant.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stop_execution(self: Any) -> ActionResult:
    """StopExecution with the error and cause that the caller gives."""
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    stop_date = datetime.datetime.now(tz=datetime.UTC)
    if execution.status == "RUNNING":
        execution.error, execution.cause = self._get_param("error"), self._get_param("cause")
        _until(lambda: execution.exec_worker.env is not None)
        execution.stop(stop_date=stop_date, error=execution.error, cause=execution.cause)
    return ActionResult({"stopDate": execution.stop_date or stop_date})


def _until(condition: Callable[[], bool], timeout_seconds: float = 10.0) -> None:
    """An execution's environment exists only once its definition is parsed."""
    end = time.monotonic() + timeout_seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def _describe_execution(self: Any) -> ActionResult:
    """DescribeExecution with a stop date for every end, TIMED_OUT too."""
    answer: ActionResult = _original_describe(self)
    execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
    result = answer.result
    if isinstance(result, dict):
        result |= machine_versions.qualifiers(execution)
        if execution.stop_date is not None:
            result["stopDate"] = execution.stop_date
    return answer


def _get_execution_history(self: Any) -> ActionResult:
    """GetExecutionHistory with pages and reverse order."""
    history = self.stepfunction_backend.get_execution_history(self._get_param("executionArn"))
    events = sorted(history["events"], key=lambda event: int(event["id"]))
    if str(self._get_param("reverseOrder", False)).lower() == "true":
        events.reverse()
    token = self._get_param("nextToken")
    try:
        offset = int(json.loads(token)["offset"]) if token else 0
    except (ValueError, KeyError, TypeError):
        raise AWSError(f"Invalid Token: '{token}'", "InvalidToken") from None
    end = offset + (int(self._get_param("maxResults") or 0) or _HISTORY_PAGE)
    page: dict[str, Any] = {"events": events[offset:end]}
    if end < len(events):
        page["nextToken"] = json.dumps({"offset": end})
    return ActionResult(page)
