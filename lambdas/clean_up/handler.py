"""Undo what a failed execution made: a reconciling step per call, until `done`; and say why it failed.

Environment: none of its own (the lock table's name is in the event).
IAM: dynamodb:GetItem on the lock table; sagemaker:DescribeTrainingJob, sagemaker:StopTrainingJob on
     `training-job/<project>-*`; sagemaker:DescribeEndpoint, sagemaker:UpdateEndpoint,
     sagemaker:DeleteEndpoint on `endpoint/<project>` (UpdateEndpoint also on
     `endpoint-config/<project>-*`); sagemaker:DeleteEndpointConfig on `endpoint-config/<project>-*`;
     sagemaker:DeleteModel on `model/<project>-*`; sagemaker:UpdateModelPackage on
     `model-package/<group>/*`; application-autoscaling:DescribeScalableTargets and
     :DescribeScalingPolicies; application-autoscaling:RegisterScalableTarget, :DeregisterScalableTarget,
     :PutScalingPolicy and :DeleteScalingPolicy on `scalable-target/*` (their ARNs are generated), and what
     Application Auto Scaling asks of whoever registers: sagemaker:UpdateEndpointWeightsAndCapacities on
     `endpoint/<project>`, cloudwatch:PutMetricAlarm, :DescribeAlarms, :DeleteAlarms on `alarm:TargetTracking-*`.
Timeout 60 s, memory 256 MB.

Event: {"state": the whole state data, "execution_id", "project", "lock_table"}. Of the state it reads
names, settings, attempt, endpoint (as it was before the change, with `exists`), serving (its config's
variant), scaling (its target and policies as they were), train, package, failed, and clean_up, its own
previous answer.
Returns {"done", "error", "cause", "actions"}: call again, after a wait, until `done`. `error` and `cause`
are for the Fail state and the notification; `actions` says what was done, over all calls. It raises nothing
of its own.

What it does depends on what is there, never on how far the execution believes it came, so it may be
repeated and may be cut off anywhere. It touches nothing unless the execution owns the lock. A step that
fails never stops the others. One that fails for now (throttled, in use, no answer) is tried again at the
next call, because the lock is released once all is `done`; one that fails for good, such as AccessDenied,
stands at the end of `cause`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

logger = Logger(service="clean-up")

VARIANT = "AllTraffic"
_BUSY = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
_SCALING: Literal["application-autoscaling"] = "application-autoscaling"
_TARGET_KEYS = ("MinCapacity", "MaxCapacity", "SuspendedState")
_POLICY_KEYS = (
    "PolicyName",
    "PolicyType",
    "TargetTrackingScalingPolicyConfiguration",
    "StepScalingPolicyConfiguration",
    "PredictiveScalingPolicyConfiguration",
)
"""What RegisterScalableTarget and PutScalingPolicy take of what their Describe operations answer.

Source: service model of botocore 1.44.5. RoleARN is left out: endpoints scale with the service's own role.
"""
_FAILED = ": failed, "
_PASSING = re.compile(
    "throttl|too ?many|rate exceeded|slow ?down|provisionedthroughput|limit exceeded|request ?timeout|requestexpired"
    "|internal ?(failure|error|server|service)|service ?unavailable|conflict|concurrent|in[ -]?use|in[ -]?progress"
    "|currently (being|in)",
    re.IGNORECASE,
)
"""What an error says that goes away by itself. A quota (ResourceLimitExceeded) is none of these."""
_LONGEST_MESSAGE = 1200
"""Room for a whole FailureReason (1,024 characters; service model of botocore 1.44.5) and the words around it."""
# Source: SageMaker API reference, UpdateModelPackage.ApprovalDescription (service model of botocore 1.44.5).
_LONGEST_APPROVAL_DESCRIPTION = 1024

FIXES: tuple[tuple[str, str], ...] = (
    ("LockHeld", "wait until that execution ends, or stop it with `kelpie stop`, then start again"),
    ("InvalidInput", "correct the execution's input and start again"),
    ("AccessDenied|not authorized|Forbidden", "allow that action in workflow/stack.yaml and deploy it again"),
    ("InvalidData", "correct the data set or data.s3_uri and start again"),
    (
        "ResourceLimitExceeded",
        "raise that quota in Service Quotas, or choose another training.instance_type or hosting.instance_type",
    ),
    (
        "CapacityError|InsufficientCapacity|MaxWaitTimeExceeded",
        "start again later, choose another training.instance_type, or set training.managed_spot to false",
    ),
    ("MaxRuntimeExceeded", "raise training.max_runtime_seconds or lower training.epochs"),
    (
        "QualityGateRefused",
        "train longer (training.epochs), improve the data, or change gate.min_test_accuracy or gate.max_regression",
    ),
    ("VersionNotApproved", "choose an Approved version: `kelpie rollback VERSION`"),
    (
        "SmokeTestFailed",
        "look at the picture it names, or change smoke_test.min_accuracy or smoke_test.max_latency_ms",
    ),
    ("EndpointNotReady|UpdateRolledBack", "read the endpoint's log in /aws/sagemaker/Endpoints and start again"),
    ("EndpointUnusable", "wait until the endpoint is InService, or delete it if it is Failed, and start again"),
    ("Throttling|TooManyRequests|Rate exceeded", "start again later"),
    ("AlgorithmError", "correct what the training log says and start again"),
)
"""What to do about an error: the first row whose pattern occurs in its name or its message."""


@cache
def client(service: Literal["application-autoscaling", "dynamodb", "sagemaker"]) -> Any:
    """Return the client of one AWS service, made once per container and not at import."""
    return boto3.client(
        service,
        # Two calls without any answer fit into the function's 60 s.
        config=Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "max_attempts": 2}),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Take the steps that can be taken now and return whether all is undone."""
    event = event if isinstance(event, dict) else {}
    state = _object(event, "state")
    me, project, table = (str(event.get(key) or "") for key in ("execution_id", "project", "lock_table"))
    error, cause = explain(state, me)
    work = Reconciliation(state, [str(action) for action in _object(state, "clean_up").get("actions") or []])
    look = "find out who holds the lock"
    try:
        owner = _item(table, project).get("owner", "")
        serving_config = _item(table, f"{project}#serving").get("endpoint_config", "")
    except (ClientError, BotoCoreError) as problem:
        done = not work.fails(look, problem)
    else:
        work.forget(look)
        done = True
        if not me or owner != me:
            work.note("touch nothing, because this execution does not hold the lock")
        elif work.config and serving_config == work.config:
            work.note("keep the new model, because it was already promoted")
        else:
            done = work.reconcile(cause)
    undone = [action for action in work.actions if _FAILED in action]
    if done and undone:
        cause = f"{cause}; left undone: {'; '.join(undone)}"
    result = {"done": done, "error": error[:256], "cause": cause[:4000], "actions": work.actions}
    logger.info("clean-up step", extra=result)
    return result


@dataclass
class Reconciliation:
    """The steps back for one execution; `actions` are sentences for people, "<step>: done" or "<step>: failed, why"."""

    state: dict[str, Any]
    actions: list[str]
    again: bool = False
    """Whether a step failed in a way that passes, so that another call may do better."""

    @property
    def endpoint(self) -> str:
        """The project's endpoint."""
        return self._name("endpoint")

    @property
    def config(self) -> str:
        """The endpoint config of this execution, whether it exists yet or not."""
        return self._name("endpoint_config")

    def reconcile(self, cause: str) -> bool:
        """Take all steps that need no waiting; return False when there is something to wait for."""
        training = self.stop_training_jobs()
        endpoint = self.restore_endpoint()
        if "wait" in (training, endpoint):
            return False
        if endpoint == "free" and self.config:
            model = self._name("model")
            self.act("delete endpoint config", self.config, "delete_endpoint_config", EndpointConfigName=self.config)
            self.act("delete model", model, "delete_model", ModelName=model)
        package = _object(self.state, "package").get("ModelPackageArn")
        brought_back = _object(_object(self.state, "settings"), "rollback").get("model_package_arn")
        if package and package != brought_back:  # that one was approved before, and stays what it was
            self.act(
                "reject model package",
                package,
                "update_model_package",
                ModelPackageArn=package,
                ModelApprovalStatus="Rejected",
                ApprovalDescription=cause[:_LONGEST_APPROVAL_DESCRIPTION],
            )
        return not self.again

    def stop_training_jobs(self) -> str:
        """Stop every attempt that still runs; return "wait" while one has not ended, else "free"."""
        base = self._name("training_job")
        number = _object(self.state, "attempt").get("number")
        last = number if isinstance(number, int) else 0
        result = "free"
        for job in [f"{base}-{attempt}" for attempt in range(last + 1)] if base else []:
            status = self._training_job_status(job)
            if status == "Stopping" or (
                status == "InProgress" and self.act("stop training job", job, "stop_training_job", TrainingJobName=job)
            ):
                result = "wait"
        return result

    def _training_job_status(self, job: str) -> str:
        look = f"look at training job {job}"
        try:
            status = str(client("sagemaker").describe_training_job(TrainingJobName=job)["TrainingJobStatus"])
        except (ClientError, BotoCoreError) as error:
            if not _is_missing(error):
                self.fails(look, error)
                return ""
            status = ""
        self.forget(look)
        if status not in ("InProgress", "Stopping"):
            self.forget(f"stop training job {job}")  # it ended by itself
        return status

    def restore_endpoint(self) -> str:
        """Put the endpoint back as it was; return "free" when it does not use our config, "wait", or "in use"."""
        if not self.config:
            return "free"
        if self._change_may_still_begin():
            return "wait"
        look = f"look at endpoint {self.endpoint}"
        try:
            live = client("sagemaker").describe_endpoint(EndpointName=self.endpoint)
        except (ClientError, BotoCoreError) as error:
            if not _is_missing(error):
                return "wait" if self.fails(look, error) else "in use"
            live = {}
        self.forget(look)
        if not live:
            return "free"
        before = _object(self.state, "endpoint")
        status, ours = live.get("EndpointStatus"), live.get("EndpointConfigName") == self.config
        previous = str(before.get("EndpointConfigName") or "")
        if "exists" not in before:  # the execution failed before it could touch the endpoint
            return "in use" if ours else "free"
        if status in _BUSY:
            return "wait"
        if not ours and status != "UpdateRollbackFailed":
            if before["exists"] and live.get("EndpointConfigName") == previous:
                self.restore_scaling()
            return "free"
        if before["exists"]:
            return self._put_back(previous, str(live.get("FailureReason") or ""))
        return self._delete_endpoint()

    def _change_may_still_begin(self) -> bool:
        """Whether SageMaker may have taken a change whose answer was lost, and does not show it yet.

        What comes later than a whole lap after the Task gave up is not waited for.
        """
        failed = _object(self.state, "failed")
        errors = [str(_object(failed, state).get("Error")) for state in ("CreateEndpoint", "UpdateEndpoint")]
        unanswered = any(error == "States.Timeout" or error.endswith("SdkClientException") for error in errors)
        return unanswered and not _object(self.state, "clean_up")

    def restore_scaling(self) -> None:
        """Let the endpoint scale as it did before this execution, or not at all if it did not."""
        before = _object(self.state, "scaling")
        if "target" not in before or "policies" not in before:
            return  # the execution failed before it could change anything
        was, policies_were = _listed(before, "target", "ScalableTargets"), _named(before, "policies")
        look = f"look at the scaling of endpoint {self.endpoint}"
        try:
            target = client(_SCALING).describe_scalable_targets(
                ServiceNamespace="sagemaker", ResourceIds=[self.target["ResourceId"]]
            )
            policies = client(_SCALING).describe_scaling_policies(**self.target)
        except (ClientError, BotoCoreError) as error:
            self.fails(look, error)
            return
        self.forget(look)
        now = _listed({"target": target}, "target", "ScalableTargets")
        if not was:
            if now:
                self._deregister()
            return
        capacity = _only(was[0], _TARGET_KEYS)
        resource = self.target["ResourceId"]
        if not now or _only(now[0], _TARGET_KEYS) != capacity:
            restored = self.act(
                "put back scalable target",
                resource,
                "register_scalable_target",
                _SCALING,
                missing_is_fine=False,
                **self.target,
                **capacity,
            )
            if not restored:
                return
        # A target takes its policies with it when it goes; one that is still shown then need not be there.
        policies_are = _named({"policies": policies}, "policies") if now else {}
        for name, policy in policies_were.items():
            if policies_are.get(name) != policy:
                what = "put back scaling policy"
                self.act(what, name, "put_scaling_policy", _SCALING, missing_is_fine=False, **self.target, **policy)
        for name in policies_are.keys() - policies_were.keys():
            self.act("delete scaling policy", name, "delete_scaling_policy", _SCALING, **self.target, PolicyName=name)

    def _put_back(self, previous: str, failure_reason: str) -> str:
        what = f"put back config {previous} on endpoint"
        if f"{what} {self.endpoint}: done" in self.actions:
            self.note(f"{what} {self.endpoint}", failure_reason or "it still has the new config")
            return "in use"
        if self._changes_instance_type() and not self._deregister() and self.again:
            return "wait"
        # RetainAllVariantProperties keeps the instances that autoscaling has added.
        started = self.act(
            what,
            self.endpoint,
            "update_endpoint",
            missing_is_fine=False,
            EndpointName=self.endpoint,
            EndpointConfigName=previous,
            RetainAllVariantProperties=True,
        )
        return "wait" if started or self.again else "in use"

    def _delete_endpoint(self) -> str:
        if not self._deregister() and self.again:
            return "wait"
        deleted = self.act("delete endpoint", self.endpoint, "delete_endpoint", EndpointName=self.endpoint)
        return "wait" if deleted or self.again else "in use"

    @property
    def target(self) -> dict[str, str]:
        """The scalable target of the endpoint's only variant."""
        return {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"endpoint/{self.endpoint}/variant/{VARIANT}",
            "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        }

    def _deregister(self) -> bool:
        what = "deregister scalable target"
        return self.act(what, self.target["ResourceId"], "deregister_scalable_target", _SCALING, **self.target)

    def _changes_instance_type(self) -> bool:
        """Whether the config before and the one of this execution differ in what a registered variant has to keep."""
        variant = _object(_object(_object(self.state, "serving"), "config"), "variant")
        hosting = _object(_object(self.state, "settings"), "hosting")
        return bool(variant.get("InstanceType") != hosting.get("instance_type"))

    def act(
        self,
        what: str,
        name: str,
        operation: str,
        service: Literal["application-autoscaling", "sagemaker"] = "sagemaker",
        *,
        missing_is_fine: bool = True,
        **parameters: Any,
    ) -> bool:
        """Call one API and note what came of it; return False when it failed."""
        try:
            getattr(client(service), operation)(**parameters)
        except (ClientError, BotoCoreError) as error:
            if missing_is_fine and _is_missing(error):
                self.forget(f"{what} {name}")
                return True
            self.fails(f"{what} {name}", error)
            return False
        self.note(f"{what} {name}")
        return True

    def fails(self, what: str, error: ClientError | BotoCoreError) -> bool:
        """Note a failure; return True when it may pass."""
        self.note(what, error)
        self.again = self.again or _passes(error)
        return _passes(error)

    def forget(self, what: str) -> None:
        """Take back an earlier failure of a step that has nothing left to do."""
        self.actions = [action for action in self.actions if not action.startswith(f"{what}{_FAILED}")]

    def note(self, what: str, problem: Exception | str | None = None) -> None:
        """Add one line to the actions, in place of an earlier one about the same step."""
        self.actions = [action for action in self.actions if not action.startswith(f"{what}: ")]
        self.actions.append(f"{what}: done" if problem is None else f"{what}{_FAILED}{_one_line(str(problem))}")

    def _name(self, key: str) -> str:
        return str(_object(self.state, "names").get(key) or "")


def explain(state: dict[str, Any], execution_id: str) -> tuple[str, str]:
    """Return the error's name and one sentence: the state that failed, why, and what to do about it."""
    name, error, message = _what_failed(state)
    text = f"{error} {message}"
    fixes = (fix for pattern, fix in FIXES if re.search(pattern, text, re.IGNORECASE))
    fix = next(fixes, f"look at `kelpie describe {execution_id}`")
    return error, f"{name} failed: {message.rstrip('. ')}; to fix it, {fix}"


def _what_failed(state: dict[str, Any]) -> tuple[str, str, str]:
    """Return (state, error, message) of what ended the execution; of several caught errors the last."""
    failed = {name: value for name, value in _object(state, "failed").items() if isinstance(value, dict)}
    failed.pop("CleanUp", None)
    if _object(state, "train").get("TrainingJobStatus") == "Completed":
        failed.pop("Train", None)  # a later attempt made it good
    if not failed:
        return "The execution", "ExecutionFailed", "no state recorded an error"
    name, caught = list(failed.items())[-1]
    error = str(caught.get("Error") or "States.TaskFailed")
    return name, error, read_cause(str(caught.get("Cause") or ""), error)


def read_cause(cause: str, error: str) -> str:
    """Take the message for people out of a Catch's Cause.

    It is a Lambda's error or the description of a training job or an endpoint (JSON, perhaps cut off), or text.
    """
    try:
        parsed = json.loads(cause)
    except (ValueError, RecursionError):
        found = re.search(r'"(?:errorMessage|FailureReason)"\s*:\s*"((?:[^"\\]|\\.)*)', cause)
        text = found[1].replace('\\"', '"').replace("\\n", " ") if found else cause
        return _one_line(re.sub(r"\s*\(Service: .*\)\s*$", "", text)) or _without_cause(error)
    if isinstance(parsed, dict):
        reason = parsed.get("errorMessage") or parsed.get("FailureReason")
        job, endpoint = parsed.get("TrainingJobStatus"), parsed.get("EndpointStatus")
        if job and (job != "Failed" or not reason):
            name, detail = parsed.get("TrainingJobName", "the training job"), parsed.get("SecondaryStatus")
            return _one_line(f"{name} ended {job} ({detail}){': ' if reason else ''}{reason or ''}")
        if endpoint:
            name, config = parsed.get("EndpointName", "the endpoint"), parsed.get("EndpointConfigName")
            return _one_line(f"{name} is {endpoint} with config {config}{': ' if reason else ''}{reason or ''}")
        if reason:
            return _one_line(str(reason))
    return _one_line(cause) or _without_cause(error)


def _without_cause(error: str) -> str:
    return "it took longer than its TimeoutSeconds" if "timed" in error.lower() or "Timeout" in error else error


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}..."


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _listed(answers: dict[str, Any], key: str, member: str) -> list[dict[str, Any]]:
    """The objects in a list of an answer of AWS."""
    found = _object(answers, key).get(member)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _named(answers: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The scaling policies of DescribeScalingPolicies' answer as PutScalingPolicy takes them, by name."""
    return {str(each.get("PolicyName")): _only(each, _POLICY_KEYS) for each in _listed(answers, key, "ScalingPolicies")}


def _only(found: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: found[key] for key in keys if found.get(key) is not None}


def _item(table: str, pk: str) -> dict[str, str]:
    answer = client("dynamodb").get_item(TableName=table, Key={"pk": {"S": pk}}, ConsistentRead=True)
    return {key: str(value["S"]) for key, value in answer.get("Item", {}).items() if "S" in value}


def _passes(error: ClientError | BotoCoreError) -> bool:
    """Whether the same call may succeed later: no answer, a busy service, or a resource that is busy now."""
    if not isinstance(error, ClientError):
        return isinstance(error, (ConnectionError, HTTPClientError))
    told: dict[str, Any] = error.response.get("Error", {})
    code = str(told.get("Code", ""))
    if "AccessDenied" in code or "NotAuthorized" in code:
        return False
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500 or status == 429 or _PASSING.search(f"{code} {told.get('Message', '')}") is not None


def _is_missing(error: ClientError | BotoCoreError) -> bool:
    """SageMaker has no error code for a missing resource, only texts under ValidationException.

    Source: service models of botocore 1.44.5; texts as moto 5.2.5 and public issue reports give them (2026-11-21).
    """
    if not isinstance(error, ClientError):
        return False
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    code = str(error.response.get("Error", {}).get("Code", ""))
    words = ("could not find", "not found", "does not exist", "no scalable target")
    return code in ("ObjectNotFoundException", "ResourceNotFound") or any(word in text for word in words)
