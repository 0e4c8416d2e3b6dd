"""Every Lambda under any event. AWS's side is a stub that answers nothing useful: what is tested is what they read."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from colour_model import picture_bytes
from fuzz.shapes import ANY_JSON, NUMBERS, ODD_TEXT, archives, json_safe, near
from fuzz.targets import PROFILES, allow, budget, outcome_of
from hypothesis import given
from hypothesis import strategies as st

from lambdas.champion_marker import handler as champion_marker
from lambdas.check_data import handler as check_data
from lambdas.classify import handler as classify
from lambdas.clean_up import handler as clean_up
from lambdas.prune_versions import handler as prune_versions
from lambdas.quality_gate import handler as quality_gate
from lambdas.resolve_input import handler as resolve_input
from lambdas.smoke_test import handler as smoke_test
from lambdas.sweep import handler as sweep
from workflow import config, execution_input

DEFAULTS = config.Config().defaults()
S3_URI = st.sampled_from(["s3://bucket/dogs/", "s3://bucket", "s3://b/", "https://x/y"]) | ANY_JSON


class Context:
    """The part of Lambda's context that is read."""

    function_name = "kelpie-under-test"
    memory_limit_in_mb = 256
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:kelpie-under-test"
    aws_request_id = "6f1c3c1e-0000-4000-8000-000000000000"
    log_group_name = "/aws/lambda/kelpie-under-test"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


class Refusing:
    """A client whose every operation is refused."""

    def __getattr__(self, operation: str) -> Any:
        def refuse(**_: Any) -> Any:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not in this test"}}, operation)

        return refuse

    def get_paginator(self, operation: str) -> Any:
        refuse = getattr(self, operation)
        return type("Paginator", (), {"paginate": lambda _, **parameters: refuse(**parameters)})()


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Refusing()
    for module, name in (
        (champion_marker, "s3"), (check_data, "s3"), (smoke_test, "s3"), (smoke_test, "runtime"), (classify, "runtime")
    ):  # fmt: skip
        monkeypatch.setattr(module, name, lambda: client)
    for module in (clean_up, prune_versions, sweep):
        monkeypatch.setattr(module, "client", lambda _service: client)
    monkeypatch.setenv("LOCK_TABLE", "kelpie-lock")
    monkeypatch.setenv("PROJECT_NAME", "kelpie")
    monkeypatch.setenv("ENDPOINT_NAME", "kelpie")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        champion_marker,
        check_data,
        classify,
        clean_up,
        prune_versions,
        quality_gate,
        resolve_input,
        smoke_test,
        sweep,
    ):
        module.logger.setLevel("CRITICAL")  # type: ignore[attr-defined]


def tried(handler: Callable[..., Any], event: Any, *typed: type[Exception]) -> str:
    """The outcome of one invocation; what it returns must be JSON, as the runtime demands."""

    def call() -> None:
        json.dumps(handler(event, Context()))

    return outcome_of(call, *typed)


def run(target: str, profile: str, events: st.SearchStrategy[Any], handler: Callable[..., Any], *typed: Any) -> None:
    @budget(target, profile)
    @given(events)
    def check(event: Any) -> None:
        allow(target, tried(handler, event, *typed))

    check()


@PROFILES
def test_resolve_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(execution_input.execution_input_schema()))
    monkeypatch.setattr(resolve_input, "SCHEMA_PATH", tmp_path / "schema.json")
    resolve_input.load_schema.cache_clear()
    parts = st.fixed_dictionaries(
        {}, optional={"input": near(list(DEFAULTS)), "defaults": st.just(DEFAULTS) | ANY_JSON}
    )
    try:
        run("ResolveInput events", profile, parts | ANY_JSON, resolve_input.handler, resolve_input.InvalidInput)
    finally:
        resolve_input.load_schema.cache_clear()


@PROFILES
def test_check_data(profile: str) -> None:
    events = st.fixed_dictionaries({}, optional={"s3_uri": S3_URI}) | ANY_JSON
    run("CheckData events", profile, events, check_data.handler, check_data.InvalidData)


@PROFILES
def test_check_data_listings(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    part = st.sampled_from(["train", "test", "valid", "cat", "dog", "..", ".", "", ".git", "犬", "a b"]) | st.text(
        max_size=4
    )
    name = st.sampled_from(["1.jpg", "2.PNG", "x.webp", ".jpg", "notes.txt", "", "a\nb.jpg"])
    keys = st.tuples(st.lists(part, max_size=3), name).map(lambda parts: "/".join([*parts[0], parts[1]]))
    rows = st.lists(st.tuples(keys, st.sampled_from([0, 1, 2**40]), st.sampled_from(["a", "b", ""])), max_size=12)
    good = [("cat/1.jpg", 5, "a"), ("cat/2.jpg", 5, "b"), ("dog/1.jpg", 5, "c"), ("dog/2.jpg", 5, "d")]
    heads = st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFFxxxxWEBP", b"<html>"])
    listing: list[Any] = []
    monkeypatch.setattr(check_data, "list_objects", lambda *_: listing[0])

    @budget("CheckData listings", profile)
    @given(rows, st.booleans(), heads)
    def check(found: list[Any], with_good: bool, head: bytes) -> None:
        listing[:] = [sorted([*found, *(good if with_good else [])])]
        store = type("Store", (), {"get_object": lambda *_, **__: {"Body": io.BytesIO(head)}})()
        check_data.s3 = lambda: store  # type: ignore[assignment]  # put back by the fixture
        allow("CheckData listings", tried(check_data.handler, {"s3_uri": "s3://bucket/"}, check_data.InvalidData))

    check()


@PROFILES
def test_quality_gate(profile: str) -> None:
    metric = st.fixed_dictionaries(
        {},
        optional={
            "MetricName": st.sampled_from(["test:accuracy", "champion:test_accuracy"]),
            "Value": NUMBERS | ANY_JSON,
        },
    )
    job = st.fixed_dictionaries(
        {}, optional={"FinalMetricDataList": st.lists(metric | ANY_JSON, max_size=3) | ANY_JSON}
    )
    share = st.floats(0, 1) | NUMBERS | ANY_JSON
    gate = st.fixed_dictionaries({}, optional={"min_test_accuracy": share, "max_regression": share})
    events = st.fixed_dictionaries({}, optional={"training_job": job | ANY_JSON, "gate": gate | ANY_JSON}) | ANY_JSON
    run("QualityGate events", profile, events, quality_gate.handler, quality_gate.InvalidGate)


@PROFILES
def test_smoke_test(profile: str) -> None:
    limits = {
        "endpoint_name": st.just("kelpie") | ANY_JSON,
        "min_accuracy": NUMBERS,
        "max_latency_ms": NUMBERS | ANY_JSON,
    }
    events = st.fixed_dictionaries({}, optional={**limits, "evidence_s3_uri": S3_URI}) | ANY_JSON
    run("SmokeTest events", profile, events, smoke_test.handler, smoke_test.InvalidEvidence)


@PROFILES
def test_smoke_test_answers(profile: str) -> None:
    row = st.fixed_dictionaries({}, optional={"class": ODD_TEXT | ANY_JSON, "probability": NUMBERS | ANY_JSON})
    answer = st.fixed_dictionaries({}, optional={"predictions": st.lists(row | ANY_JSON, max_size=4) | ANY_JSON})
    bodies = (answer | ANY_JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
    bodies |= st.just(b"[" * 100_000) | st.just(b'{"predictions": [{"class": "cat", "probability": 0.5}]}')
    picture = smoke_test.Picture("cat/1.png", "cat", picture_bytes())

    @budget("SmokeTest answers", profile)
    @given(bodies)
    def check(body: bytes) -> None:
        allow(
            "SmokeTest answers",
            outcome_of(lambda: smoke_test.parse_answer(picture, body), smoke_test.SmokeTestFailed),
        )

    check()


@PROFILES
def test_prune_versions(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.setattr(prune_versions, "list_versions", lambda _group: [])
    monkeypatch.setattr(prune_versions, "in_use", lambda *_: prune_versions.InUse())
    keys = ["project", "model_package_group", "endpoint_name", "versions_to_keep"]
    whole = st.fixed_dictionaries(
        {}, optional={**dict.fromkeys(keys[:3], st.just("kelpie") | ANY_JSON), keys[3]: NUMBERS}
    )
    run("PruneVersions events", profile, whole | near(keys), prune_versions.handler, prune_versions.InvalidRetention)


@PROFILES
def test_clean_up(profile: str) -> None:
    causes = ODD_TEXT | ANY_JSON.map(json.dumps) | st.just("[" * 100_000) | st.just('{"errorMessage": "x')
    caught = st.fixed_dictionaries({}, optional={"Error": ODD_TEXT | ANY_JSON, "Cause": causes | ANY_JSON})
    state = st.fixed_dictionaries(
        {},
        optional={
            "failed": st.dictionaries(st.sampled_from(["Train", "SmokeTest"]) | ODD_TEXT, caught | ANY_JSON) | ANY_JSON,
            **dict.fromkeys(("names", "attempt", "endpoint", "train", "package", "clean_up"), ANY_JSON),
        },
    )
    names = dict.fromkeys(("execution_id", "project", "lock_table"), ANY_JSON)
    events = st.fixed_dictionaries({}, optional={"state": state | ANY_JSON, **names}) | ANY_JSON

    @budget("CleanUp events", profile)
    @given(events)
    def check(event: Any) -> None:
        answer: dict[str, Any] = {}

        def call() -> None:
            answer.update(clean_up.handler(event, Context()))

        allow("CleanUp events", outcome_of(call))
        assert answer["error"]
        assert answer["cause"]
        assert len(json.dumps(answer)) < 60_000

    check()


@PROFILES
def test_sweep(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    execution = "arn:aws:states:us-east-1:123456789012:execution:kelpie:x"
    monkeypatch.setenv("CLEAN_UP_FUNCTION", "clean-up:live")
    monkeypatch.setenv("NOTIFICATION_TOPIC", "topic")
    held = sweep.Lock(execution, "", ())
    locks: list[sweep.Lock] = []
    monkeypatch.setattr(sweep, "read_lock", lambda: locks.pop())
    monkeypatch.setattr(sweep, "release_lock", lambda _: True)
    monkeypatch.setattr(sweep.time, "sleep", lambda _: None)
    seen: dict[str, Any] = {}

    class Cloud:
        def describe_execution(self, executionArn: str) -> dict[str, Any]:
            assert executionArn == execution
            return dict(seen["end"])

        def get_execution_history(self, **_: Any) -> dict[str, Any]:
            return {"events": [{"stateEnteredEventDetails": {"name": "Train", "input": seen["state"]}}]}

        def invoke(self, Payload: bytes, **_: Any) -> dict[str, Any]:
            assert isinstance(json.loads(Payload)["state"]["failed"], dict)
            return {"Payload": io.BytesIO(seen["answer"].encode("utf-8", "surrogatepass"))}

        def publish(self, Message: str, **_: Any) -> None:
            assert execution in Message

    monkeypatch.setattr(sweep, "client", lambda _: Cloud())
    detail = st.fixed_dictionaries({}, optional={"executionArn": st.just(execution) | ANY_JSON, "status": ANY_JSON})
    ends = st.fixed_dictionaries(
        {"status": st.sampled_from(["ABORTED", "TIMED_OUT", "FAILED", "RUNNING", "SUCCEEDED"])},
        optional={"error": ODD_TEXT, "cause": ODD_TEXT},
    )
    done = st.fixed_dictionaries({"done": st.just(True)}, optional={"actions": ANY_JSON, "error": ANY_JSON})
    events = st.fixed_dictionaries({}, optional={"detail": detail | ANY_JSON}) | ANY_JSON
    states = st.fixed_dictionaries({}, optional={"failed": ANY_JSON, "clean_up": ANY_JSON}) | ANY_JSON

    @budget("Sweep events", profile)
    @given(
        events,
        ends,
        states.map(json.dumps) | ODD_TEXT,
        (done | ANY_JSON.filter(_is_not_waiting)).map(json.dumps) | ODD_TEXT,
    )
    def check(event: Any, end: Any, state: str, answer: str) -> None:
        seen.update(end=end, state=state, answer=answer)
        locks[:] = [sweep.Lock("", "", ()), held]
        allow("Sweep events", tried(sweep.handler, event, sweep.CleanUpBroken))

    check()


def _is_not_waiting(answer: Any) -> bool:
    """An answer of CleanUp that does not ask for another lap."""
    return not isinstance(answer, dict) or bool(answer.get("done", True))


@PROFILES
def test_champion_marker(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    sent: list[tuple[str, Any]] = []
    monkeypatch.setattr(champion_marker, "_send", lambda url, answer: sent.append((url, answer)))
    told = dict.fromkeys(("StackId", "RequestId", "LogicalResourceId", "PhysicalResourceId"), ODD_TEXT | ANY_JSON)
    events = st.fixed_dictionaries(
        {"ResponseURL": st.sampled_from(["https://cloudformation.example/x", "file:///etc/passwd", "x"]) | ANY_JSON},
        optional={
            **told,
            "RequestType": st.sampled_from(["Create", "Update", "Delete"]) | ANY_JSON,
            "ResourceProperties": near(["Bucket", "Key"]),
        },
    )

    @budget("ChampionMarker events", profile)
    @given(events | ANY_JSON)
    def check(event: Any) -> None:
        sent.clear()
        outcome = tried(champion_marker.handler, event, champion_marker.InvalidEvent)
        allow("ChampionMarker events", outcome)
        assert len(sent) == (outcome == "ok")
        assert all(url.startswith(("https://", "http://")) for url, _ in sent)

    check()


class Endpoint:
    """An endpoint that classifies everything as a cat."""

    def invoke_endpoint(self, **_: Any) -> dict[str, Any]:
        return {"Body": io.BytesIO(b'{"predictions": [{"class": "cat", "probability": 0.75}]}')}


@PROFILES
def test_classify(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    events = near(["image_base64", "top_k", "url"]) | st.fixed_dictionaries(
        {"image_base64": ODD_TEXT | st.binary(max_size=30).map(lambda b: base64.b64encode(b).decode())},
        optional={"top_k": NUMBERS},
    )
    run("Classify events", profile, events, classify.handler, classify.InvalidRequest, classify.EndpointFailed)


@PROFILES
def test_classify_requests(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    endpoint = Endpoint()
    monkeypatch.setattr(classify, "runtime", lambda: endpoint)
    picture = base64.b64encode(picture_bytes()).decode()
    http = st.fixed_dictionaries(
        {"method": st.sampled_from(["POST", "POST", "GET", "OPTIONS"]) | ODD_TEXT, "path": st.just("/") | ODD_TEXT}
    )
    bodies = st.sampled_from([picture, json.dumps({"image_base64": picture}), "", "[" * 50_000]) | ODD_TEXT
    headers = st.dictionaries(
        st.sampled_from(["content-type", "Content-Type", "accept", "origin"]) | ODD_TEXT,
        st.sampled_from(["application/json", "image/png", "text/plain"]) | ODD_TEXT,
        max_size=3,
    )

    @st.composite
    def requests(draw: st.DrawFn) -> dict[str, Any]:
        path = draw(st.sampled_from(["/", "/", "/"]) | ODD_TEXT)
        event: dict[str, Any] = {
            "version": "2.0",
            "rawPath": path,
            "requestContext": {"http": draw(http) | {"path": path}, "stage": "$default"},
            "headers": draw(headers),
            "body": draw(bodies),
            "isBase64Encoded": draw(st.booleans()),
            "queryStringParameters": draw(st.none() | st.just({"top_k": "2"}) | st.dictionaries(ODD_TEXT, ODD_TEXT)),
        }
        if draw(st.integers(0, 3)) == 0:  # no function URL sends this, but anybody with the right to invoke may
            event[draw(st.sampled_from(sorted(event)))] = draw(ANY_JSON)
        return event

    @budget("Classify requests", profile)
    @given(requests())
    def check(event: dict[str, Any]) -> None:
        if "requestContext" not in event:
            return
        answer = classify.handler(event, Context())
        assert json_safe(answer)
        json.loads(answer["body"])
        allow("Classify requests", str(answer["statusCode"]))

    check()


def test_evidence_archives_are_among_the_shapes() -> None:
    """The strategy does make archives that the smoke test can read, else the fuzzing would be of refusals alone."""
    seen: set[str] = set()

    @budget("evidence archives", "quick")
    @given(archives([picture_bytes()]))
    def check(content: bytes) -> None:
        seen.add(outcome_of(lambda: list(smoke_test.read_pictures(io.BytesIO(content))), Exception))

    check()
    assert {"ok", "InvalidEvidence"} <= seen
