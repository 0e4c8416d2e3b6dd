"""Lines become log events, log events become metrics; and the checkpoint folder and its S3 prefix stay in step."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

from workflow.local.logs import LogWriter, TrainingMetrics


class Logs:
    """CloudWatch Logs as far as a writer needs it."""

    class exceptions:
        class ResourceAlreadyExistsException(Exception):
            pass

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.events: list[dict[str, Any]] = []
        self.attempts = 0

    def create_log_group(self, logGroupName: str) -> None:
        raise self.exceptions.ResourceAlreadyExistsException

    def create_log_stream(self, logGroupName: str, logStreamName: str) -> None:
        pass

    def put_log_events(self, logGroupName: str, logStreamName: str, logEvents: list[Any]) -> None:
        self.attempts += 1
        if self.refuses:
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "PutLogEvents")
        self.events += logEvents


def metrics(*definitions: tuple[str, str]) -> TrainingMetrics:
    return TrainingMetrics("job", [{"Name": name, "Regex": regex} for name, regex in definitions])


def values(found: TrainingMetrics) -> dict[str, float]:
    return {item["MetricName"]: item["Value"] for item in found.final_metric_data()}


def test_lines_arrive_in_order_and_before_close_returns() -> None:
    logs = Logs()
    writer = LogWriter(logs, "group", "stream")
    for number in range(2500):
        writer.write(f"line {number}")
    writer.close()
    assert [event["message"] for event in logs.events] == [f"line {number}" for number in range(2500)]


def test_an_empty_line_is_an_event_and_a_huge_one_is_cut() -> None:
    logs = Logs()
    writer = LogWriter(logs, "group", "stream")
    writer.write("")
    writer.write("x" * 300_000)
    writer.close()
    assert all(0 < len(event["message"].encode()) < 256 * 1024 for event in logs.events)
    assert len(logs.events) == 2


def test_a_role_without_permission_loses_the_log_and_nothing_else() -> None:
    logs = Logs(refuses=True)
    writer = LogWriter(logs, "group", "stream")
    writer.write("lost")
    writer.close()
    assert "AccessDenied" in (writer.error or "")
    assert writer.tail() == ["lost"]
    assert logs.attempts == 1


def test_the_last_value_of_each_metric_is_final() -> None:
    found = metrics(("train:loss", "train:loss=([0-9.eE+-]+)"), ("test:accuracy", "test:accuracy=([0-9.]+)"))
    for line in ("epoch=1 train:loss=0.5", "epoch=2 train:loss=2.5e-1 test:accuracy=1", "loss=9"):
        found.observe(line)
    assert values(found) == {"train:loss": 0.25, "test:accuracy": 1.0}


def test_text_that_matches_but_is_no_number_is_no_metric() -> None:
    found = metrics(("loss", "loss=(.*)"))
    found.observe("loss=1.2.3")
    assert values(found) == {}


def test_a_definition_that_is_no_regular_expression_is_an_error() -> None:
    with pytest.raises(re.error):
        metrics(("loss", "loss=("))
