"""Lambda: every invocation runs the deployed zip for real, wherever in moto it comes from."""

from __future__ import annotations

import base64
import json
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.awslambda import urls as lambda_urls
from moto.awslambda.exceptions import LambdaClientError, UnknownLayerVersionException
from moto.awslambda.models import LambdaBackend, LambdaFunction, LayerVersion
from moto.awslambda.utils import get_backend
from moto.awslambda_simple.models import LambdaSimpleBackend, lambda_simple_backends

from workflow.local.authorization import replace
from workflow.local.engine import Engine
from workflow.local.identity import AccessDenied
from workflow.local.images import ImageBuildFailed, UnknownImage
from workflow.local.sandboxes import SERVICE, BadPackage, FunctionVersion, Outcome, Sandbox, Sandboxes

HOOKS: tuple[str, ...] = (
    "moto.awslambda.exceptions.LambdaClientError",
    "moto.awslambda.exceptions.UnknownLayerVersionException",
    "moto.awslambda.models.LambdaBackend.create_function",
    "moto.awslambda.models.LambdaBackend.delete_function",
    "moto.awslambda.models.LambdaBackend.invoke",
    "moto.awslambda.models.LambdaBackend.layers_versions_by_arn",
    "moto.awslambda.models.LambdaBackend.update_function_configuration",
    "moto.awslambda.models.LambdaFunction._get_layers_data",
    "moto.awslambda.models.LambdaFunction.event_invoke_config",
    "moto.awslambda.models.LambdaFunction.invoke",
    "moto.awslambda.models.LayerVersion",
    "moto.awslambda.urls.url_paths",
    "moto.awslambda.utils.get_backend",
    "moto.awslambda_simple.models.LambdaSimpleBackend",
    "moto.awslambda_simple.models.lambda_simple_backends",
)

MAX_REQUEST_BYTES = 6_291_456
"""Source: AWS Lambda developer guide, "Lambda quotas", synchronous invocation payload (read 2026-11-21)."""
CONCURRENCY = 20
"""Invocations at the same time over all functions: smaller than on AWS, because each needs a process here."""
ASYNC_RETRY_WAITS_SECONDS = (60, 120)
"""Source: AWS Lambda developer guide, "How Lambda handles errors and retries with asynchronous invocation"."""

_LOG_TAIL_BYTES = 4096
_LOG_BATCH_EVENTS = 1000
_log = logging.getLogger(__name__)


class _TooManyRequests(LambdaClientError):
    code = 429


class _RequestTooLarge(LambdaClientError):
    code = 413


class Functions:
    """Runs invocations: limits, environments, logs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._active: Counter[str] = Counter()
        self.sandboxes = Sandboxes(engine)

    def invoke(self, function: LambdaFunction, body: Any, headers: Any, response_headers: dict[str, Any]) -> bytes:
        """Do what `LambdaFunction.invoke` promises: fill the headers and return the payload."""
        event = _event(body)
        kind = headers.get("X-Amz-Invocation-Type") or headers.get("x-amz-invocation-type") or "RequestResponse"
        if kind == "DryRun":
            return b""
        if kind == "Event":
            threading.Thread(target=self._run_async, args=(function, event), daemon=True).start()
            return b""
        outcome = self._run(function, event)
        if outcome.is_error:
            response_headers["x-amz-function-error"] = "Unhandled"
        log = "".join(f"{entry['message']}\n" for entry in outcome.log).encode()
        response_headers["x-amz-log-result"] = base64.b64encode(log[-_LOG_TAIL_BYTES:]).decode()
        return outcome.payload

    def _run_async(self, function: LambdaFunction, event: str) -> None:
        error, answer = "", b"null"
        settings = self._async_settings(function)
        retries = settings.get("MaximumRetryAttempts")
        waits = ASYNC_RETRY_WAITS_SECONDS[: len(ASYNC_RETRY_WAITS_SECONDS) if retries is None else int(retries)]
        for wait_seconds in (*waits, None):
            try:
                outcome = self._run(function, event)
                if not outcome.is_error:
                    return
                answer = outcome.payload
                error = str(json.loads(answer).get("errorMessage", ""))
            except Exception as problem:
                _log.exception("An asynchronous invocation of %s failed", function.function_name)
                error = str(problem)
            if wait_seconds is not None:
                self._engine.clock.sleep(wait_seconds)
        request_id = str(uuid.uuid4())
        attributes = {
            "RequestID": ("String", request_id),
            "ErrorCode": ("Number", "200"),
            "ErrorMessage": ("String", error[:1024] or "-"),
        }
        told = {name: {"DataType": kind, "StringValue": value} for name, (kind, value) in attributes.items()}
        letter_box = str(getattr(function, "dead_letter_config", {}).get("TargetArn") or "")
        self._bury(function, letter_box, event, told)
        destination = settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
        record = _failure_record(function, request_id, len(waits) + 1, event, answer)
        self._bury(function, destination, record, {})

    def _async_settings(self, function: LambdaFunction) -> dict[str, Any]:
        """What PutFunctionEventInvokeConfig has set; kept for the function here, for each of its qualifiers on AWS."""
        latest = get_backend(self._engine.account_id, self._engine.region).get_function(function.function_name)
        configs = latest.event_invoke_config
        return dict(configs[-1].config) if configs else {}

    def _bury(self, function: LambdaFunction, target: str, event: str, told: dict[str, Any]) -> None:
        """Send a failed event to a queue or topic, with the function's own role.

        Source: AWS Lambda developer guide, "Adding a dead-letter queue", Nov 2026.
        """
        if not target:
            return
        try:
            client = self._engine.identity.client(target.split(":")[2], function.role, SERVICE)
            if target.split(":")[2] == "sns":
                client.publish(TopicArn=target, Message=event, MessageAttributes=told)
            else:
                url = f"{self._engine.endpoint_url}/{self._engine.account_id}/{target.rsplit(':', 1)[-1]}"
                client.send_message(QueueUrl=url, MessageBody=event, MessageAttributes=told)
        except (AccessDenied, BotoCoreError, ClientError) as problem:
            _log.warning("The dead letter of %s is lost: %s", function.function_name, problem)

    def _run(self, function: LambdaFunction, event: str) -> Outcome:
        version = _version(function)
        with self._slot(function):
            try:
                sandbox = self.sandboxes.take(version)
            except (AccessDenied, BadPackage, ImageBuildFailed, UnknownImage) as error:
                raise LambdaClientError("InvalidParameterValueException", str(error)) from error
            try:
                outcome = sandbox.invoke(event, str(uuid.uuid4()))
            except BaseException:
                sandbox.close()
                raise
            self.sandboxes.give_back(sandbox)
        self._write_log(sandbox, outcome)
        return outcome

    @contextmanager
    def _slot(self, function: LambdaFunction) -> Iterator[None]:
        name = function.function_name
        # A version is a copy; what is reserved is reserved for the function.
        reserved = get_backend(self._engine.account_id, self._engine.region).get_function(name).reserved_concurrency
        with self._lock:
            is_full = self._active.total() >= CONCURRENCY
            if is_full or (reserved is not None and self._active[name] >= int(reserved)):
                raise _TooManyRequests("TooManyRequestsException", "Rate Exceeded.")
            self._active[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._active[name] -= 1

    def _write_log(self, sandbox: Sandbox, outcome: Outcome) -> None:
        """Write with the role of the function: without the permission its log is lost, as on AWS."""
        function = sandbox.function
        stream = {"logGroupName": function.log_group, "logStreamName": sandbox.log_stream}
        try:
            logs = self._engine.identity.client("logs", function.role_arn, SERVICE)
            if not sandbox.has_log_stream:
                try:
                    logs.create_log_stream(**stream)
                except logs.exceptions.ResourceNotFoundException:
                    logs.create_log_group(logGroupName=function.log_group)
                    logs.create_log_stream(**stream)
                sandbox.has_log_stream = True
            for start in range(0, len(outcome.log), _LOG_BATCH_EVENTS):
                logs.put_log_events(**stream, logEvents=outcome.log[start : start + _LOG_BATCH_EVENTS])
        except (AccessDenied, BotoCoreError, ClientError) as error:
            _log.warning("The log of %s is lost: %s", function.name, error)


def _failure_record(function: LambdaFunction, request_id: str, attempts: int, event: str, answer: bytes) -> str:
    """What a destination for failed asynchronous invocations gets.

    Source: AWS Lambda developer guide, "Capturing records of Lambda asynchronous invocations", Nov 2026.
    """
    record = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": request_id,
            "functionArn": function.function_arn,
            "condition": "RetriesExhausted",
            "approximateInvokeCount": attempts,
        },
        "requestPayload": json.loads(event),
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": json.loads(answer),
    }
    return json.dumps(record)


def _event(body: Any) -> str:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "{}")
    size = len(text.encode())
    if size > MAX_REQUEST_BYTES:
        message = f"Request must be smaller than {MAX_REQUEST_BYTES} bytes for the InvokeFunction operation"
        raise _RequestTooLarge("RequestTooLargeException", message)
    try:
        json.loads(text)
    except ValueError as error:
        message = f"Could not parse request body into json: {error}"
        raise LambdaClientError("InvalidRequestContentException", message) from None
    return text


def _version(function: LambdaFunction) -> FunctionVersion:
    variables = {str(key): str(value) for key, value in (function.environment_vars or {}).items()}
    return FunctionVersion(
        name=function.function_name,
        arn=function.function_arn,
        version=str(function.version),
        handler=str(function.handler),
        runtime=str(function.run_time),
        role_arn=function.role,
        timeout_seconds=int(function.timeout),
        memory_mb=int(function.memory_size),
        code_sha256=str(function.code_sha_256),
        variables=tuple(sorted(variables.items())),
        layers=tuple(layer.arn for layer in _layers(function)),
        code=function.code_bytes,
        layers_code=tuple(layer.code_bytes for layer in _layers(function)),
    )


def _layers(function: LambdaFunction) -> Sequence[LayerVersion]:
    attached: Sequence[LayerVersion] = getattr(function, "attached_layers", ())
    return attached


def _attach_layers(function: LambdaFunction, arns: Sequence[str]) -> list[Any]:
    """Remember the layer versions themselves: a function keeps one that is deleted.

    Source: AWS Lambda developer guide, "Deleting layer versions", Nov 2026.
    """
    backend = get_backend(function.account_id, function.region)
    found = [backend.layers_versions_by_arn(arn) for arn in arns]
    if not all(found):
        raise UnknownLayerVersionException(list(arns))
    function.attached_layers = [layer for layer in found if layer]  # type: ignore[attr-defined]
    return [{"Arn": layer.arn, "CodeSize": layer.code_size} for layer in _layers(function)]


def install(engine: Engine) -> None:
    """Let moto's Lambda run functions in processes."""
    functions = Functions(engine)

    def invoke(function: LambdaFunction, body: Any, request_headers: Any, response_headers: Any) -> bytes:
        return functions.invoke(function, body, request_headers, response_headers)

    class LocalLambdaBackend(LambdaSimpleBackend):
        """moto's Lambda without Docker, but with execution."""

        _url_module = property(lambda _self: lambda_urls)

        def invoke(self, *arguments: Any, **named: Any) -> Any:
            return LambdaBackend.invoke(self, *arguments, **named)

        def create_function(self, spec: dict[str, Any]) -> LambdaFunction:
            """moto forgets where dead letters go, and makes the first version before it could be told."""
            function = LambdaBackend.create_function(self, spec)
            self._lambdas._get_latest(spec["FunctionName"]).dead_letter_config = spec.get("DeadLetterConfig") or {}  # type: ignore[attr-defined]
            return function

        def update_function_configuration(
            self, function_name: str, qualifier: str, body: dict[str, Any]
        ) -> dict[str, Any] | None:
            if "DeadLetterConfig" in body:
                self.get_function(function_name, qualifier).dead_letter_config = body["DeadLetterConfig"]  # type: ignore[attr-defined]
            return LambdaBackend.update_function_configuration(self, function_name, qualifier, body)

        def delete_function(self, function_name: str, qualifier: str | None = None) -> None:
            arn = self.get_function(function_name, qualifier).function_arn
            super().delete_function(function_name, qualifier)
            functions.sandboxes.discard(arn)

    replace(LambdaFunction, "invoke", invoke)
    replace(LambdaFunction, "_get_layers_data", _attach_layers)
    lambda_simple_backends.backend = LocalLambdaBackend
