"""Why an execution did not succeed: sentence, log tail, fix and command, from a canned account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workflow.executions import Execution
from workflow.explain import Explanation, explain
from workflow.summary import to_text

START = datetime(2026, 1, 1, tzinfo=UTC)
CHECKPOINTS = "s3://artifacts/checkpoints/x"
GATE = "QualityGate failed: test accuracy 0.5 is below 0.9; to fix it, train longer"
JOB = {"TrainingJobName": "kelpie-1", "CheckpointConfig": {"S3Uri": CHECKPOINTS}}


def at(seconds: float) -> int:
    """Milliseconds since 1970 of a moment of the execution."""
    return round((START + timedelta(seconds=seconds)).timestamp() * 1000)


def task(state: str, resource: str, second: int, **parameters: Any) -> list[dict[str, Any]]:
    """The events of a Task that fails after a second."""
    scheduled = {"resource": resource, "parameters": json.dumps(parameters)}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("TaskStateEntered", {"stateEnteredEventDetails": {"name": state}}),
        ("TaskScheduled", {"taskScheduledEventDetails": scheduled}),
        ("TaskFailed", {"taskFailedEventDetails": {"error": "Boom", "cause": "why"}}),
        ("TaskStateExited", {"stateExitedEventDetails": {"name": state}}),
    ]
    return [
        {"type": kind, "timestamp": START + timedelta(seconds=second + (kind == "TaskStateExited")), **details}
        for kind, details in kinds
    ]


class Canned:
    """An account whose services answer with what the test put in."""

    endpoint_url = "http://127.0.0.1:1"

    def __init__(self, events: list[dict[str, Any]], *, checkpoints: int = 0) -> None:
        self.events, self.checkpoints = events, checkpoints
        self.logs: dict[str, list[tuple[str, float, str]]] = {}
        self.exceptions = type("Exceptions", (), {"ResourceNotFoundException": KeyError})

    def client(self, _service: str) -> Canned:
        return self

    def get_execution_history(self, **_: Any) -> dict[str, Any]:
        return {"events": self.events}

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
        return {"FunctionName": FunctionName}

    def list_objects_v2(self, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, Any]:
        assert (Bucket, Prefix, MaxKeys) == ("artifacts", "checkpoints/x/", 1)
        return {"KeyCount": self.checkpoints}

    def get_paginator(self, operation: str) -> Canned:
        self.operation = operation
        return self

    def paginate(self, logGroupName: str, startTime: int = 0, endTime: int = 2**60, **_: Any) -> Iterator[Any]:
        written = self.logs[logGroupName]
        if self.operation == "describe_log_streams":
            first: dict[str, int] = {}
            for stream, second, _text in written:
                first.setdefault(stream, at(second))
            yield {"logStreams": [{"logStreamName": name, "creationTime": made} for name, made in first.items()]}
            return
        events = [
            {"eventId": str(number), "timestamp": at(second), "message": text + "\n", "logStreamName": stream}
            for number, (stream, second, text) in enumerate(written)
        ]
        yield {"events": [event for event in events if startTime <= event["timestamp"] <= endTime]}

    def describe_log_streams(self, logGroupName: str, logStreamNamePrefix: str) -> dict[str, Any]:
        names = sorted({stream for stream, _, _ in self.logs[logGroupName] if stream.startswith(logStreamNamePrefix)})
        return {"logStreams": [{"logStreamName": name} for name in names]}

    def get_log_events(self, logGroupName: str, logStreamName: str, nextToken: str = "", **_: Any) -> dict[str, Any]:
        lines = [] if nextToken else [text for stream, _, text in self.logs[logGroupName] if stream == logStreamName]
        return {"events": [{"message": line} for line in lines], "nextForwardToken": "end"}


def execution(events: list[dict[str, Any]], **changes: Any) -> Execution:
    fields: dict[str, Any] = {
        "arn": "arn:x:try-1", "name": "try-1", "status": "FAILED", "started": START,
        "stopped": START + timedelta(minutes=5), "input": {}, "output": None, "error": "", "cause": "",
        "time_scale": 1.0, "events": tuple(events),
    }  # fmt: skip
    return Execution(**(fields | changes))


def explained(account: Canned, job: dict[str, Any] | None = None, **changes: Any) -> Explanation:
    found = explain(account, execution(account.events, **changes), job or {})  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_what_did_not_fail_is_not_explained(status: str) -> None:
    assert explain(Canned([]), execution([], status=status), {}) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("last_line", "lines_shown"), [("    raise InvalidData(", 1), ("    return settings['data']", 4)]
)
def test_frames_are_shown_of_a_defect_and_not_of_an_error_that_a_function_raises_on_purpose(
    last_line: str, lines_shown: int
) -> None:
    account = Canned(task("CheckData", "invoke", 10, FunctionName="kelpie-check-data"))
    message = f"[ERROR] InvalidData: no pictures\rTraceback (most recent call last):\r  File handler.py\r{last_line}"
    account.logs["/aws/lambda/kelpie-check-data"] = [("2026/01/01[1]a", 10, message)]
    found = explained(account, error="InvalidData", cause="CheckData failed: no pictures")
    assert found.log_tail[0] == "[ERROR] InvalidData: no pictures"
    assert len(found.log_tail) == lines_shown


def test_of_a_failed_function_the_invocation_that_failed_is_shown_without_lambdas_own_lines() -> None:
    account = Canned(task("CheckData", "invoke", 10, FunctionName="kelpie-check-data"))
    stream = "2026/01/01[1]a"
    account.logs["/aws/lambda/kelpie-check-data"] = [
        (stream, 2, "another execution's line"),
        (stream, 10, "START RequestId: 1 Version: 1"), (stream, 10, "the first try"), (stream, 10, "END RequestId: 1"),
        (stream, 10.5, "START RequestId: 2 Version: 1"), (stream, 10.5, "[ERROR] InvalidData: no pictures"),
        (stream, 10.5, "END RequestId: 2"), (stream, 10.5, "REPORT RequestId: 2 Duration: 9 ms"),
        (stream, 200, "a later execution's line"),
    ]  # fmt: skip
    cause = "CheckData failed: no pictures; to fix it, correct the data set; left undone: delete model x: failed, y"
    found = explained(
        account, error="InvalidData", cause=cause, input={"data": {"s3_uri": "s3://b/d/"}, "Comment": "x"}
    )
    assert found.state == "CheckData"
    assert found.sentence == cause
    assert found.log_tail == ("[ERROR] InvalidData: no pictures",)
    assert found.fix == "correct the data set"
    assert found.run == """kelpie start --local --input '{"data": {"s3_uri": "s3://b/d/"}}'"""


def test_of_a_failed_job_the_host_that_failed_first_is_shown_and_its_checkpoints_are_gone_on_from() -> None:
    account = Canned(task("Train", "createTrainingJob.sync", 10, TrainingJobName="kelpie-1"), checkpoints=1)
    account.logs["/aws/sagemaker/TrainingJobs"] = [
        ("kelpie-1/algo-1-1", 11, "lost contact"), ("kelpie-1/algo-2-1", 11, "out of memory"),
    ]  # fmt: skip
    job = {**JOB, "TrainingJobStatus": "Failed", "FailureReason": "AlgorithmError: exit code 1 (algo-2)"}
    cause = "Train failed: exit code 1; to fix it, correct what the training log says and start again"
    found = explained(account, job, error="AlgorithmError", cause=cause)
    assert found.log_tail == ("out of memory",)
    assert found.run == "kelpie resume try-1"
    account.checkpoints = 0
    assert explained(account, job, error="AlgorithmError", cause=cause).run == "kelpie start --local"


def test_of_an_endpoint_that_did_not_come_up_the_first_new_server_is_shown() -> None:
    events = task("UpdateEndpoint", "updateEndpoint", 100, EndpointName="kelpie")
    account = Canned([*events, *task("WaitForEndpoint", "describeEndpoint", 110, EndpointName="kelpie")])
    account.logs["/aws/sagemaker/Endpoints/kelpie"] = [
        ("AllTraffic/i-old", 1, "model ready"),
        ("AllTraffic/i-new", 101, "the model cannot be loaded: InvalidContract"),
        ("AllTraffic/i-old", 102, "the old one serves"), ("AllTraffic/i-newer", 130, "a second try"),
    ]  # fmt: skip
    job = {**JOB, "TrainingJobStatus": "Completed"}
    cause = "WaitForEndpoint failed: kelpie is Failed; to fix it, read the endpoint's log"
    found = explained(account, job, error="EndpointNotReady", cause=cause)
    assert found.log_tail == ("the model cannot be loaded: InvalidContract",)
    assert (found.state, found.run) == ("WaitForEndpoint", "kelpie resume try-1")


def test_what_would_end_in_the_same_place_is_started_again_and_not_resumed() -> None:
    account = Canned(task("QualityGate", "invoke", 10, FunctionName="gate"))
    account.logs["/aws/lambda/gate"] = []
    job = {**JOB, "TrainingJobStatus": "Completed"}
    assert explained(account, job, error="QualityGateRefused", cause=GATE).run == "kelpie start --local"


def test_a_failed_rollback_is_rolled_back_again() -> None:
    version = "arn:aws:sagemaker:us-east-1:1:model-package/kelpie/2"
    found = explained(Canned([]), input={"rollback": {"model_package_arn": version}}, error="E", cause="x")
    assert found.run == f"kelpie rollback {version}"


def test_a_stopped_execution_says_who_stopped_it_where_and_what_becomes_of_the_lock() -> None:
    events = task("Train", "createTrainingJob.sync", 10, TrainingJobName="kelpie-1")[:2]
    account = Canned([*events, {"type": "ExecutionAborted", "timestamp": START + timedelta(seconds=20)}], checkpoints=3)
    account.logs["/aws/sagemaker/TrainingJobs"] = [("kelpie-1/algo-1-1", 11, "step=1")]
    job = {**JOB, "TrainingJobStatus": "Stopped"}
    found = explained(account, job, status="ABORTED", error="StoppedByUser", cause="Stopped by kelpie stop")
    assert found.sentence == "The execution was stopped in state Train (StoppedByUser: Stopped by kelpie stop)"
    assert "takes over the lock" in found.fix
    assert found.run == "kelpie resume try-1"


def test_a_timed_out_execution_names_the_state_that_it_was_in() -> None:
    events = task("Train", "createTrainingJob.sync", 10, TrainingJobName="kelpie-1")[:2]
    account = Canned(events)
    account.logs["/aws/sagemaker/TrainingJobs"] = []
    found = explained(account, status="TIMED_OUT")
    assert found.sentence == "The execution took longer than the state machine's TimeoutSeconds, in state Train"
    assert (found.run, bool(found.fix)) == ("kelpie start --local", True)


def test_the_text_begins_with_the_sentence_and_has_fix_and_command_on_lines_of_their_own() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("training_job_name", "hosts", "billable_seconds", "test_accuracy", "endpoint_name")
    )
    failed = {"sentence": GATE, "log_tail": ["one", "two"], "fix": "train longer", "run": "kelpie start --local"}
    ended = {"status": "FAILED", "error": "QualityGateRefused", "seconds_total": 9.5, "time_scale": 30.0}
    summary = {
        **nothing,
        **failed,
        **ended,
        "seconds_by_state": {},
        "predictions": [],
        "data_warnings": ["2 test pictures are in train/ too"],
        "cost_usd_estimate": {"total": 0},
    }
    assert to_text(summary).splitlines() == [
        GATE,
        "  | one",
        "  | two",
        "fix: train longer",
        "run: kelpie start --local",
        "FAILED (QualityGateRefused) after 9.5 s (waits divided by 30)",
        "warning, data: 2 test pictures are in train/ too",
    ]
