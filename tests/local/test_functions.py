"""Deployed zips, invoked by plain boto3 on the running local cloud."""

from __future__ import annotations

import base64
import io
import json
import os
import textwrap
import time
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.local.conftest import World, wait_until
from workflow.local.sandboxes import LAYERS, FunctionVersion, Sandbox

ECHO = "def handler(event, context): return event"
IMPORTS_BOTH = "import mine, shared\ndef handler(event, context): return [shared.says, mine.says, shared.__file__]"
PID = "import os\ndef handler(event, context): return os.getpid()"


class Function:
    """A function of the account, made from source."""

    def __init__(self, world: World, role: str, code: str, **settings: Any) -> None:
        self.world = world
        self.name = f"function-{uuid.uuid4().hex[:8]}"
        self.lambda_ = world.client("lambda")
        files = settings.pop("files", {})
        self.lambda_.create_function(
            FunctionName=self.name,
            Runtime=settings.pop("Runtime", "python3.12"),
            Handler=settings.pop("Handler", "handler.handler"),
            Role=role,
            Code={"ZipFile": package(code, files)},
            **{"Timeout": 20, "MemorySize": 256, **settings},
        )

    def invoke(self, event: Any = None, **more: Any) -> dict[str, Any]:
        response = self.lambda_.invoke(FunctionName=self.name, Payload=json.dumps(event).encode(), **more)
        return {**response, "Payload": json.loads(response["Payload"].read() or b"null")}

    def __call__(self, event: Any = None) -> Any:
        answer = self.invoke(event)
        assert "FunctionError" not in answer, answer["Payload"]
        return answer["Payload"]

    def error(self, event: Any = None) -> dict[str, Any]:
        answer = self.invoke(event)
        assert answer["FunctionError"] == "Unhandled"
        return answer["Payload"]

    def log(self) -> list[str]:
        logs = self.world.client("logs")
        group = f"/aws/lambda/{self.name}"
        streams = logs.describe_log_streams(logGroupName=group)["logStreams"]
        events = [
            event
            for stream in streams
            for event in logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
        ]
        return [event["message"] for event in events]


def package(code: str, files: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {"handler.py": textwrap.dedent(code), **(files or {})}.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def publish_layer(world: World, files: dict[str, str]) -> str:
    """The ARN of the first version of a new layer."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # without the time: all runs share one folder
    layer = world.client("lambda").publish_layer_version(
        LayerName=f"layer-{uuid.uuid4().hex[:8]}", Content={"ZipFile": buffer.getvalue()}
    )
    return str(layer["LayerVersionArn"])


@pytest.fixture(scope="module")
def role(world: World) -> str:
    return world.make_role(principal="lambda.amazonaws.com")


@pytest.fixture
def make(world: World, role: str) -> Callable[..., Function]:
    return lambda code=ECHO, **settings: Function(world, settings.pop("role", role), code, **settings)


def test_a_handler_gets_the_event_and_its_answer_comes_back(make: Callable[..., Function]) -> None:
    assert make()({"breed": "Käl­pie 🐕", "n": [1, 2.5, None]}) == {"breed": "Käl­pie 🐕", "n": [1, 2.5, None]}


def test_the_context_describes_the_function(make: Callable[..., Function]) -> None:
    function = make(
        """
        def handler(event, context):
            return [context.function_name, context.memory_limit_in_mb, context.invoked_function_arn,
                    context.log_group_name, context.log_stream_name, context.aws_request_id,
                    context.get_remaining_time_in_millis()]
        """
    )
    name, memory, arn, group, stream, request_id, remaining = function()
    assert (name, memory, group) == (function.name, "256", f"/aws/lambda/{function.name}")
    assert arn == f"arn:aws:lambda:us-east-1:123456789012:function:{function.name}"
    assert "[$LATEST]" in stream
    assert uuid.UUID(request_id)
    assert 0 < remaining <= 20_000


def test_a_function_sees_its_variables_and_nothing_of_the_servers_environment(
    make: Callable[..., Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os\ndef handler(event, context): return dict(os.environ)"
    environment = make(code, Environment={"Variables": {"ENDPOINT_NAME": "kelpie"}})()
    assert environment["ENDPOINT_NAME"] == "kelpie"
    assert environment["AWS_REGION"] == "us-east-1"
    assert environment["_HANDLER"] == "handler.handler"
    assert not set(environment) & {"HOME", "USER", "MOTO_PORT", "VIRTUAL_ENV", "PYTHONPATH"}


def test_a_function_acts_with_its_own_role(world: World, make: Callable[..., Function]) -> None:
    code = f"""
        import boto3
        def handler(event, context):
            arn = boto3.client("sts").get_caller_identity()["Arn"]
            boto3.client("s3").put_object(Bucket={world.bucket!r}, Key="from-lambda", Body=b"x")
            return arn
    """
    allowed = make(code, MemorySize=512)
    assert ":assumed-role/" in allowed()
    assert world.keys("from-lambda") == ["from-lambda"]
    denied = make(code, MemorySize=512, role=world.make_role(deny="s3:PutObject", principal="lambda.amazonaws.com"))
    error = denied.error()
    assert "AccessDenied" in error["errorMessage"]


def test_a_role_that_does_not_trust_lambda_is_refused(world: World, make: Callable[..., Function]) -> None:
    with pytest.raises(ClientError, match="cannot be assumed by Lambda"):
        make(role=world.make_role(principal="states.amazonaws.com")).invoke()


def test_an_exception_gives_its_class_name_message_and_stack(make: Callable[..., Function]) -> None:
    function = make(
        """
        class InvalidInput(Exception):
            pass
        def handler(event, context):
            raise InvalidInput("Invalid training.epochs")
        """
    )
    error = function.error()
    assert (error["errorType"], error["errorMessage"]) == ("InvalidInput", "Invalid training.epochs")
    assert len(error["stackTrace"]) == 1
    assert 'handler.py", line 5, in handler' in error["stackTrace"][0]
    assert uuid.UUID(error["requestId"])
    assert any(line.startswith("[ERROR] InvalidInput: Invalid training.epochs") for line in function.log())


@pytest.mark.parametrize(
    ("code", "handler", "error_type", "message"),
    [
        ("import no_such_thing", "handler.handler", "Runtime.ImportModuleError", "No module named 'no_such_thing'"),
        ("x = 1", "handler.handler", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'handler'"),
        (ECHO, "other.handler", "Runtime.ImportModuleError", "Unable to import module 'other'"),
        ("def handler(:", "handler.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'handler'"),
        ("raise KeyError('ENDPOINT_NAME')", "handler.handler", "KeyError", "ENDPOINT_NAME"),
        ("def handler(e, c): return {1, 2}", "handler.handler", "Runtime.MarshalError", "Unable to marshal response"),
        ("import os\ndef handler(e, c): os._exit(7)", "handler.handler", "Runtime.ExitError", "exit status 7"),
        ("import sys\nsys.exit(0)", "handler.handler", "Runtime.ExitError", "without providing a reason"),
    ],
)
def test_what_goes_wrong_before_or_after_the_handler_has_awss_name(
    make: Callable[..., Function], code: str, handler: str, error_type: str, message: str
) -> None:
    function = make(code, Handler=handler)
    for _ in range(2):  # the second one meets a new environment
        error = function.error()
        assert error["errorType"] == error_type
        assert message in error["errorMessage"]


def test_a_function_that_takes_too_long_is_ended_and_the_next_invocation_starts_afresh(
    make: Callable[..., Function],
) -> None:
    function = make("import time\ndef handler(event, context): time.sleep(event); return 'slept'", Timeout=1)
    started = time.monotonic()
    error = function.error(60)
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("Error: Task timed out after 1.00 seconds")
    assert 1 <= time.monotonic() - started < 15
    assert function(0) == "slept"
    assert any("Task timed out after 1.00 seconds" in line for line in function.log())


def test_a_function_that_takes_too_much_memory_is_ended(make: Callable[..., Function]) -> None:
    code = """
        import time
        def handler(event, context):
            hog = bytearray(400_000_000)
            hog[::4096] = b"x" * len(hog[::4096])
            time.sleep(10)
    """
    function = make(code, MemorySize=128)
    error = function.error()
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Runtime exited with error: signal: killed")
    assert any("Error Type: Runtime.OutOfMemory" in line for line in function.log())


def test_output_is_logged_between_start_and_report(make: Callable[..., Function]) -> None:
    function = make(
        """
        import logging, sys
        print("cold start")
        def handler(event, context):
            print("to stdout")
            print("to stderr", file=sys.stderr)
            logging.getLogger().warning("to the logger")
        """
    )
    answer = function.invoke(LogType="Tail")
    log = function.log()
    assert log[0].startswith("START RequestId: ")
    assert log[0].endswith("Version: $LATEST")
    assert log[1:4] == ["cold start", "to stdout", "to stderr"]
    assert log[4].startswith("[WARNING]\t")
    assert log[4].endswith("\tto the logger")
    assert log[5].startswith("END RequestId: ")
    assert "\tMemory Size: 256 MB\tMax Memory Used: " in log[6]
    assert "Init Duration: " in log[6]
    assert len(log) == 7
    assert base64.b64decode(answer["LogResult"]).decode().splitlines() == log


def test_garbage_is_looked_for_in_invocations(make: Callable[..., Function]) -> None:
    code = (
        "import gc\nwhile_imported = gc.isenabled()\ndef handler(event, context): return while_imported, gc.isenabled()"
    )
    assert make(code)() == [False, True]


def test_the_process_stays_warm_between_invocations(make: Callable[..., Function]) -> None:
    function = make("calls = []\ndef handler(event, context): calls.append(1); return len(calls)")
    assert [function(), function(), function()] == [1, 2, 3]


def test_new_code_and_new_configuration_start_a_new_process(make: Callable[..., Function]) -> None:
    function = make(PID)
    first = function()
    function.lambda_.update_function_configuration(FunctionName=function.name, Environment={"Variables": {"A": "1"}})
    second = function()
    function.lambda_.update_function_code(
        FunctionName=function.name, ZipFile=package("def handler(e, c): return 'new'")
    )
    assert first != second
    assert function() == "new"
    assert function.world.process_names().count(f"lambda-{function.name}") == 1


def test_invocations_at_the_same_time_run_in_processes_of_their_own(make: Callable[..., Function]) -> None:
    function = make("import os, time\ndef handler(event, context): time.sleep(1); return os.getpid()")
    with ThreadPoolExecutor(3) as threads:
        pids = list(threads.map(lambda _: function(), range(3)))
    assert len(set(pids)) == 3


def test_reserved_concurrency_throttles(world: World, make: Callable[..., Function]) -> None:
    function = make("import time\ndef handler(event, context): time.sleep(2)")
    function.lambda_.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    session = world.connection.session()
    client = session.client(
        "lambda", endpoint_url=world.connection.endpoint_url, config=Config(retries={"total_max_attempts": 1})
    )
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(function)
        wait_until(lambda: f"lambda-{function.name}" in world.process_names())
        with pytest.raises(client.exceptions.TooManyRequestsException, match="Rate Exceeded"):
            client.invoke(FunctionName=function.name)
        running.result()


def test_an_asynchronous_invocation_is_accepted_at_once_and_retried_twice(
    world: World, make: Callable[..., Function]
) -> None:
    code = f"""
        import boto3, time
        def handler(event, context):
            s3 = boto3.client("s3")
            count = s3.list_objects_v2(Bucket={world.bucket!r}, Prefix=event).get("KeyCount", 0)
            s3.put_object(Bucket={world.bucket!r}, Key=f"{{event}}/{{count}}", Body=b"")
            raise RuntimeError
    """
    prefix = uuid.uuid4().hex
    answer = make(code, MemorySize=512).invoke(prefix, InvocationType="Event")
    assert answer["StatusCode"] == 202
    wait_until(lambda: len(world.keys(prefix)) == 3)


def test_a_dry_run_starts_nothing(make: Callable[..., Function]) -> None:
    function = make()
    assert function.invoke(InvocationType="DryRun")["StatusCode"] == 204
    assert f"lambda-{function.name}" not in function.world.process_names()


def test_a_deleted_function_leaves_no_process(make: Callable[..., Function]) -> None:
    function = make()
    function(1)
    assert f"lambda-{function.name}" in function.world.process_names()
    function.lambda_.delete_function(FunctionName=function.name)
    assert f"lambda-{function.name}" not in function.world.process_names()


def test_a_runtime_that_does_not_exist_here_is_named(make: Callable[..., Function]) -> None:
    with pytest.raises(ClientError, match=r"lambda/nodejs22\.x not found"):
        make(Runtime="nodejs22.x").invoke()


def test_a_large_event_and_answer_pass_and_too_large_ones_are_refused(make: Callable[..., Function]) -> None:
    function = make(MemorySize=512)
    assert function("x" * 5_000_000) == "x" * 5_000_000
    with pytest.raises(ClientError, match="must be smaller than 6291456 bytes"):
        function.invoke("x" * 6_300_000)


def test_an_event_that_is_not_json_is_refused(make: Callable[..., Function]) -> None:
    function = make()
    with pytest.raises(ClientError, match="Could not parse request body into json"):
        function.lambda_.invoke(FunctionName=function.name, Payload=b"{not json")


def test_a_function_cannot_import_the_projects_modules(make: Callable[..., Function]) -> None:
    for module in ("workflow", "sandboxes", "moto"):
        assert make(f"import {module}").error()["errorType"] == "Runtime.ImportModuleError"


def test_a_flood_of_output_is_cut_and_does_not_block(make: Callable[..., Function]) -> None:
    function = make("def handler(event, context):\n    for n in range(100_000): print(n)\n    return 'done'")
    assert function() == "done"
    assert function.log()[-1].startswith("REPORT ")


def test_an_environment_that_cannot_start_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no more processes")

    engine: Any = SimpleNamespace(home=tmp_path, images=SimpleNamespace(python_for=fail))
    version = FunctionVersion("f", "arn", "1", "h.h", "python3.12", "role", 3, 128, "sha", (), (), b"", ())
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no more processes"):
        Sandbox(engine, version, tmp_path, tmp_path)
    assert list((tmp_path / "sandboxes").iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_alias_runs_the_version_that_it_names_until_it_names_another(make: Callable[..., Function]) -> None:
    function = make("def handler(event, context): return ['one', context.function_version]")
    client, name = function.lambda_, function.name
    first = client.publish_version(FunctionName=name, Description="one")
    alias = client.create_alias(FunctionName=name, Name="live", FunctionVersion=first["Version"])["AliasArn"]
    client.update_function_code(
        FunctionName=name, ZipFile=package("def handler(event, context): return ['two', context.function_version]", {})
    )
    second = client.publish_version(FunctionName=name, Description="two")

    def by(function_name: str) -> Any:
        return json.loads(client.invoke(FunctionName=function_name)["Payload"].read())

    assert by(alias) == ["one", "1"]
    assert by(name) == ["two", "$LATEST"]
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=second["Version"])
    assert by(f"{name}:live") == ["two", "2"]
    client.delete_function(FunctionName=name, Qualifier="1")
    client.update_function_configuration(FunctionName=name, Description="again")
    assert client.publish_version(FunctionName=name)["Version"] == "3", "a number never comes again"


def test_what_is_reserved_for_a_function_holds_for_its_alias(make: Callable[..., Function]) -> None:
    function = make()
    client, name = function.lambda_, function.name
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError, match="TooManyRequests"):
        client.invoke(FunctionName=f"{name}:live")
    client.delete_function_concurrency(FunctionName=name)
    assert client.invoke(FunctionName=f"{name}:live")["StatusCode"] == 200


def queue_for_failures(world: World) -> tuple[Any, str, str, str]:
    """SQS, a queue's URL and ARN, and the role of a function that may send to it."""
    sqs, queue = world.client("sqs"), f"failed-{uuid.uuid4().hex[:8]}"
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    target = f"arn:aws:sqs:us-east-1:123456789012:{queue}"
    role = world.make_role(principal="lambda.amazonaws.com")
    allowed = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": target}
    world.client("iam").put_role_policy(
        RoleName=role.rsplit("/", 1)[-1],
        PolicyName="failed",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    return sqs, url, target, role


def test_a_destination_gets_the_record_of_an_asynchronous_event_that_failed(
    world: World, make: Callable[..., Function]
) -> None:
    sqs, url, target, role = queue_for_failures(world)
    function = make("def handler(event, context): raise ValueError('no dog')", role=role)
    function.lambda_.publish_version(FunctionName=function.name)
    function.lambda_.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    function.lambda_.put_function_event_invoke_config(
        FunctionName=function.name,
        Qualifier="live",
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": target}},
    )
    function.lambda_.invoke(FunctionName=f"{function.name}:live", InvocationType="Event", Payload=b'{"dog": 1}')
    [letter] = wait_until(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    record = json.loads(letter["Body"])
    assert record["requestPayload"] == {"dog": 1}
    assert record["responsePayload"]["errorMessage"] == "no dog"
    assert record["requestContext"]["approximateInvokeCount"] == 2


def test_an_asynchronous_event_that_fails_three_times_is_a_dead_letter(
    world: World, make: Callable[..., Function]
) -> None:
    sqs, url, target, role = queue_for_failures(world)
    code = "def handler(event, context): print('tried'); raise ValueError('no dog')"
    function = make(code, role=role, DeadLetterConfig={"TargetArn": target})
    function.lambda_.publish_version(FunctionName=function.name)
    function.lambda_.create_alias(FunctionName=function.name, Name="live", FunctionVersion="1")
    function.lambda_.invoke(FunctionName=f"{function.name}:live", InvocationType="Event", Payload=b'{"dog": 1}')
    request = {"QueueUrl": url, "MessageAttributeNames": ["All"]}
    [letter] = wait_until(lambda: sqs.receive_message(**request).get("Messages"))
    assert json.loads(letter["Body"]) == {"dog": 1}
    assert letter["MessageAttributes"]["ErrorMessage"]["StringValue"] == "no dog"
    events = world.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{function.name}")["events"]
    assert [event["message"].strip() for event in events].count("tried") == 3


def test_a_function_imports_from_its_layers_after_its_own_code_and_the_last_layer_wins(
    make: Callable[..., Function], world: World
) -> None:
    first = publish_layer(world, {"python/shared.py": "says = 'first'", "python/mine.py": "says = 'layer'"})
    second = publish_layer(world, {"python/shared.py": "says = 'second'"})
    function = make(IMPORTS_BOTH, Layers=[first, second], files={"mine.py": "says = 'function'"})
    shared, mine, file = function()
    assert (shared, mine) == ("second", "function")
    assert file.endswith("/python/shared.py")
    assert Path(file).is_relative_to(LAYERS)  # which all local clouds of this environment share


def test_another_layer_takes_effect_at_the_next_invocation(make: Callable[..., Function], world: World) -> None:
    files = {"mine.py": "says = 'function'"}
    function = make(IMPORTS_BOTH, Layers=[publish_layer(world, {"python/shared.py": "says = 1"})], files=files)
    assert function()[0] == 1
    other = publish_layer(world, {"python/shared.py": "says = 2"})
    function.lambda_.update_function_configuration(FunctionName=function.name, Layers=[other])
    assert function()[0] == 2
    function.lambda_.update_function_configuration(FunctionName=function.name, Layers=[])
    assert function.error()["errorType"] == "Runtime.ImportModuleError"


def test_versions_keep_a_layer_version_that_is_deleted(make: Callable[..., Function], world: World) -> None:
    layer = publish_layer(world, {"python/shared.py": "says = 'kept'"})
    function = make(IMPORTS_BOTH, Layers=[layer], files={"mine.py": "says = ''"})
    client, name = function.lambda_, function.name
    version = client.publish_version(FunctionName=name)["Version"]
    layer_name, _, number = layer.split(":layer:")[1].partition(":")
    client.delete_layer_version(LayerName=layer_name, VersionNumber=int(number))
    assert function()[0] == "kept"
    answer = client.invoke(FunctionName=name, Qualifier=version)["Payload"].read()
    assert json.loads(answer)[0] == "kept"
    with pytest.raises(ClientError, match="LayerVersion does not exist"):
        make(Layers=[layer])


def test_a_layer_that_is_no_zip_is_refused(make: Callable[..., Function], world: World) -> None:
    client = world.client("lambda")
    name = f"layer-{uuid.uuid4().hex[:8]}"
    layer = client.publish_layer_version(LayerName=name, Content={"ZipFile": b"no zip"})["LayerVersionArn"]
    with pytest.raises(ClientError, match="Could not unzip"):
        make(Layers=[layer]).invoke()
