"""What makes Kelpie fast and cheap, counted and never timed: transitions, bytes, clients, modules, archives.

A bound is near what was counted when it was written: what passes it has grown, and somebody should say why.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from contracts.test_definition_flow import ASL, STATES, WAITING_ASL, Run, canned, first_deployment, run
from moto.iam.models import iam_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.sts.models import STSBackend

from lambdas.classify import handler as classify
from workflow.cost.pricing import MOST_TRANSITIONS
from workflow.deployment import packaging
from workflow.local import state_tasks
from workflow.local.identity import Identity

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"
JPEG = b"\xff\xd8\xff\xe0 a picture \x00\xfe"


# ---- Executions ----------------------------------------------------------------------------------------------


def test_the_first_deployment_enters_this_many_states() -> None:
    kinds = Counter(STATES[name]["Type"] for name in first_deployment().path)
    assert kinds == {"Task": 21, "Pass": 9, "Choice": 9, "Wait": 1, "Succeed": 1}


def test_its_history_is_a_hundredth_of_what_step_functions_keeps() -> None:
    """Source: Step Functions developer guide, "Quotas", execution history: 25,000 events (read 2026-11-22)."""
    assert 2 + sum(events_of(STATES[name]) for name in first_deployment().path) <= 150


def events_of(state: dict[str, Any]) -> int:
    """Entered and exited; of a Task scheduled, started and succeeded as well, and submitted when it waits for a job."""
    return 2 if state["Type"] != "Task" else 6 if state["Resource"].endswith(".sync") else 5


@cache
def with_pictures(count: int) -> Run:
    checked = canned("CheckData")["Payload"] | {"image_count": count, "total_bytes": count * 100_000}
    return run({"CheckData": {"Payload": checked}}, start="CheckData", stop="QualityGate")


def test_a_thousand_times_the_pictures_make_no_more_states_and_only_longer_numbers() -> None:
    few, many = with_pictures(1_000), with_pictures(1_000_000)
    assert few.path == many.path
    for state in few.path:
        assert bytes_at(many, state) - bytes_at(few, state) in (0, 6)  # three digits in each of two numbers


def test_the_data_between_states_stays_small() -> None:
    assert max(bytes_at(first_deployment(), state) for state in first_deployment().path) < 6_000


def bytes_at(execution: Run, state: str) -> int:
    """Of the state's input, without what the tests' interpreter keeps beside it."""
    data = {key: value for key, value in execution.data_at[state].items() if key not in ("parameters", "answer")}
    return len(json.dumps(data, separators=(",", ":")))


@pytest.mark.parametrize("machine", [ASL, WAITING_ASL], ids=["refuses", "waits"])
def test_the_price_of_an_execution_covers_every_transition_that_it_can_make(machine: dict[str, Any]) -> None:
    """All laps of all loops, and every Task's retries once: a lap that is retried is not one that waits."""
    states = machine["States"]
    loops = [loop for loop in loops_of(states) if loop]
    laps = {name: laps_of(states, loop) for loop in loops for name in loop}
    entered = sum(1 + laps.get(name, 0) for name in states)
    retried = sum(retry["MaxAttempts"] for state in states.values() for retry in state.get("Retry", []))
    assert len(loops) >= 4
    assert entered + retried <= MOST_TRANSITIONS


def laps_of(states: dict[str, Any], loop: frozenset[str]) -> int:
    """How often a loop can go round; its Choice counts."""
    found = [int(text) for name in loop for text in re.findall(r'"NumericLessThan": (\d+)', json.dumps(states[name]))]
    assert found, f"nothing ends the loop {sorted(loop)}"
    return max(found)


def loops_of(states: dict[str, Any]) -> set[frozenset[str]]:
    """The states that lead to each other; the empty set stands for all that are in no loop."""
    after = {name: everything_after(states, name) for name in states}
    return {frozenset(other for other in after[name] if name in after[other]) for name in states}


def everything_after(states: dict[str, Any], name: str) -> set[str]:
    found: set[str] = set()
    waiting = ways_out(states[name])
    while waiting:
        state = waiting.pop()
        if state not in found:
            found.add(state)
            waiting += ways_out(states[state])
    return found


def ways_out(state: dict[str, Any]) -> list[str]:
    return re.findall(r'"(?:Next|Default)": "([^"]+)"', json.dumps(state))


# ---- Lambdas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaging.LAMBDAS)
def test_a_lambda_s_own_zip_is_small(name: str) -> None:
    assert packaging.lambda_archive(name).size_bytes < (40_000 if name in packaging.VENDORED else 10_000)


def test_the_layer_is_counted_apart() -> None:
    assert packaging.layer_archive().size_bytes < 1_200_000


CONTEXT = SimpleNamespace(
    function_name="kelpie-classify",
    memory_limit_in_mb=512,
    invoked_function_arn=f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:kelpie-classify",
    aws_request_id="1",
    log_stream_name="s",
)
DIRECT = {"image_base64": base64.b64encode(JPEG).decode()}
OVER_HTTP = {
    "version": "2.0",
    "rawPath": "/",
    "headers": {"content-type": "image/jpeg"},
    "requestContext": {"http": {"method": "POST", "path": "/"}, "stage": "$default"},
    "body": DIRECT["image_base64"],
    "isBase64Encoded": True,
}


@pytest.mark.parametrize("event", [DIRECT, OVER_HTTP], ids=["direct", "over HTTP"])
def test_classify_sends_the_endpoint_the_picture_and_nothing_else(
    event: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        content = b'{"predictions": [{"class": "corgi", "probability": 1.0}]}'
        return AWSResponse(request.url, 200, {}, SimpleNamespace(stream=lambda: [content], read=lambda *_: content))

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("ENDPOINT_NAME", "kelpie")
    client = classify.runtime.__wrapped__()
    client.meta.events.register("before-send", answer)
    monkeypatch.setattr(classify, "runtime", lambda: client)
    assert predictions(classify.handler(event, CONTEXT)) == [{"class": "corgi", "probability": 1.0}]
    [request] = sent
    assert request.body == JPEG
    assert int(request.headers["Content-Length"]) == len(JPEG)


def predictions(answer: dict[str, Any]) -> Any:
    return (json.loads(answer["body"]) if "body" in answer else answer)["predictions"]


# ---- The local cloud -----------------------------------------------------------------------------------------


def test_a_hundred_tasks_make_one_client_for_each_service_and_assume_their_role_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    assumed: list[str] = []
    make_client, assume_role = boto3.Session.client, STSBackend.assume_role

    def client(self: Any, service: str, **named: Any) -> Any:
        made.append(service)
        return make_client(self, service, **named)

    def assume(self: Any, **named: Any) -> Any:
        assumed.append(named["role_arn"])
        return assume_role(self, **named)

    monkeypatch.setattr(boto3.Session, "client", client)
    monkeypatch.setattr(STSBackend, "assume_role", assume)
    engine: Any = SimpleNamespace(identity=Identity(ACCOUNT, "us-east-1", "http://127.0.0.1:1"), application=None)
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam_backends[ACCOUNT]["aws"].create_role("machine", document, "/", None, "", {}, 3600)
    try:
        for _ in range(50):
            for service in ("sagemaker", "dynamodb"):
                state_tasks.client_of(engine, service, role.arn)
    finally:
        moto_api_backend.reset()
    assert made == ["sagemaker", "dynamodb"]
    assert assumed == [role.arn]


# ---- The prompt ----------------------------------------------------------------------------------------------


def test_help_imports_few_modules() -> None:
    program = (
        "import sys; from workflow.__main__ import main; sys.argv = ['kelpie', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    print(len(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(ran.stderr.split()[-1]) < 200
