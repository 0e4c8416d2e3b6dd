"""An account that answers what the report reads, without a network: builders with defaults for one execution."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from PIL import Image

from workflow.account import Account

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
ARN = "arn:aws:states:us-east-1:123456789012:execution:kelpie:first"
NAMES = {"endpoint": "kelpie", "training_job": "kelpie-1"}
SETTINGS = {
    "data": {"s3_uri": "s3://data/dogs/"},
    "training": {"epochs": 2, "seed": 7},
    "hosting": {"instance_type": "ml.c5.large"},
}
DEFINITION: dict[str, Any] = {
    "StartAt": "Prepare",
    "States": {
        "Prepare": {"Type": "Pass", "Next": "Train"},
        "Train": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
            "Comment": "Trains on spot capacity",
            "Retry": [{"ErrorEquals": ["Busy"], "MaxAttempts": 2}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "CleanUp"}],
            "Next": "Good?",
        },
        "Good?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.gate.passed", "BooleanEquals": True, "Next": "SmokeTest"}],
            "Default": "NotGood",
        },
        "NotGood": {"Type": "Pass", "Next": "CleanUp"},
        "SmokeTest": {
            "Type": "Task",
            "Resource": "arn:test",
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "CleanUp"}],
            "Next": "Done",
        },
        "Done": {"Type": "Succeed"},
        "CleanUp": {"Type": "Task", "Resource": "arn:clean", "Next": "Failed"},
        "Failed": {"Type": "Fail"},
    },
}


def jpeg(colour: str = "teal") -> bytes:
    """A small picture."""
    written = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(written, "JPEG")
    return written.getvalue()


def evaluation(classes: Sequence[str] = ("corgi", "pug")) -> dict[str, Any]:
    """What training says of four test pictures, one of them wrong."""
    first, second = classes
    return {
        "accuracy": 0.75,
        "picture_count": 4,
        "per_class": [
            {"class": first, "picture_count": 2, "accuracy": 0.5},
            {"class": second, "picture_count": 2, "accuracy": 1.0},
        ],
        "classes": list(classes),
        "confusion_matrix": [[1, 1], [0, 2]],
        "worst_pictures": [
            {
                "file": "worst/00.jpg",
                "picture": f"test/{first}/a.jpg",
                "label": first,
                "predicted": second,
                "probability": 0.9,
                "label_probability": 0.1,
            }
        ],
    }


CONTRACT = {
    "library_versions": {"torch": "2.14.1"},
    "training": {"manifest_sha256": "ab12", "weights_sha256": "cd34"},
}


def evidence(files: Mapping[str, bytes] | None = None, **changes: Any) -> bytes:
    """output.tar.gz as training writes it; `files` are added, `changes` are keys of evaluation.json."""
    content = {
        "evaluation.json": json.dumps(evaluation() | changes).encode(),
        "model.json": json.dumps(CONTRACT).encode(),
        "worst/00.jpg": jpeg("tomato"),
        "smoke-thumbnails/corgi/b.png.jpg": jpeg(),
        **(files or {}),
    }
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return written.getvalue()


LOG = (
    "epoch=1 step=5 train:loss=1.5",
    "epoch=1 step=6 valid:loss=1.1 valid:accuracy=0.5",
    "host=algo-1 rank=0 resumed_step=6 total_steps=12",
    "epoch=2 step=10 train:loss=0.5",
    "epoch=2 step=12 valid:loss=0.9 valid:accuracy=0.75",
)


def training_job(status: str = "Completed") -> dict[str, Any]:
    """DescribeTrainingJob of a job that lost its spot instances once."""
    steps = [("Downloading", 5), ("Training", 20), ("Interrupted", 5), ("Training", 20), ("Uploading", 5)]
    transitions, second = [], 2
    for name, seconds in steps:
        start = START + timedelta(seconds=second)
        second += seconds
        transitions.append({"Status": name, "StartTime": start, "EndTime": START + timedelta(seconds=second)})
    return {
        "TrainingJobName": "kelpie-1-0",
        "TrainingJobStatus": status,
        "CreationTime": START + timedelta(seconds=2),
        "TrainingTimeInSeconds": 55,
        "BillableTimeInSeconds": 50,
        "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 2},
        "SecondaryStatusTransitions": transitions,
        "FinalMetricDataList": [{"MetricName": "test:accuracy", "Value": 0.75}],
        "HyperParameters": {"seed": "7"},
        "AlgorithmSpecification": {
            "TrainingImage": "pytorch:2",
            "MetricDefinitions": [
                {"Name": name, "Regex": f"{name}=([0-9.eE+-]+)"}
                for name in ("train:loss", "valid:loss", "valid:accuracy")
            ],
        },
        "InputDataConfig": [
            {"ChannelName": "code", "DataSource": {"S3DataSource": {"S3Uri": "s3://artifacts/assets/c0de/"}}}
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://artifacts/runs/1/output"},
        "ModelArtifacts": {"S3ModelArtifacts": "s3://artifacts/runs/1/output/model.tar.gz"},
    }


def events(steps: Sequence[tuple[str, str, float, str]], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """History events from (state, type, seconds, cause of its failure or ""); each state leaves with `data`."""
    made: list[dict[str, Any]] = [{"type": "ExecutionStarted", "timestamp": START}]
    now = START
    for name, kind, seconds, cause in steps:
        made.append({"type": f"{kind}StateEntered", "timestamp": now, "stateEnteredEventDetails": {"name": name}})
        resource = "createTrainingJob.sync" if name == "Train" else "publish"
        if kind == "Task":
            parameters = json.dumps({"TrainingJobName": "kelpie-1-0"})
            scheduled = {"resource": resource, "parameters": parameters}
            made.append({"type": "TaskScheduled", "timestamp": now, "taskScheduledEventDetails": scheduled})
        now += timedelta(seconds=seconds)
        if cause:
            failed = {"error": "Refused", "cause": cause}
            made.append({"type": "TaskFailed", "timestamp": now, "taskFailedEventDetails": failed})
        if kind != "Fail":
            left = {"name": name, "output": json.dumps(data)}
            made.append({"type": f"{kind}StateExited", "timestamp": now, "stateExitedEventDetails": left})
    return made


PREDICTIONS = [
    {"picture": "corgi/b.png", "label": "corgi", "predicted": "corgi", "probability": 0.8, "latency_ms": 31.0},
    {"picture": "pug/c.png", "label": "pug", "predicted": "corgi", "probability": 0.6, "latency_ms": 55.0},
]
SUCCESS = (
    ("Prepare", "Pass", 1, ""),
    ("Train", "Task", 60, ""),
    ("Good?", "Choice", 0, ""),
    ("SmokeTest", "Task", 2, ""),
    ("Done", "Succeed", 0, ""),
)
FAILURE = (
    ("Prepare", "Pass", 1, ""),
    ("Train", "Task", 3, "no pictures"),
    ("CleanUp", "Task", 2, ""),
    ("Failed", "Fail", 0, ""),
)


class FakeAccount:
    """Answers the reads of the report; what an execution did is given to it."""

    endpoint_url: str | None = None

    def __init__(
        self,
        *,
        steps: Sequence[tuple[str, str, float, str]] = SUCCESS,
        status: str = "SUCCEEDED",
        name: str = "first",
        cause: str = "",
        data: Mapping[str, Any] | None = None,
        archive: bytes | None = None,
        job: Mapping[str, Any] | None = None,
        log: Sequence[str] = LOG,
    ) -> None:
        uris = {"evidence_s3_uri": "s3://artifacts/runs/1/output/output.tar.gz"}
        whole = {"settings": SETTINGS, "names": NAMES, "artifacts": uris, "smoke": {"predictions": PREDICTIONS}}
        self.data = dict(whole if data is None else data)
        self.steps, self.status, self.name, self.cause = steps, status, name, cause
        self.archive = evidence() if archive is None else archive
        self.job = dict(training_job() if job is None else job)
        self.log = list(log)

    def account(self) -> Account:
        """This, as what the code asks for."""
        return cast(Account, self)

    def client(self, _service: str) -> Any:
        """One object answers for all services."""
        return self

    class exceptions:
        """The errors that a client names."""

        class ResourceNotFoundException(Exception):
            """Raised by no method here."""

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        seconds = sum(step[2] for step in self.steps)
        ended = {} if self.status == "RUNNING" else {"stopDate": START + timedelta(seconds=seconds)}
        failed = {"error": "Refused", "cause": self.cause} if self.status == "FAILED" else {}
        output = {"output": json.dumps(self.data)} if self.status == "SUCCEEDED" else {}
        return {
            "executionArn": ARN,
            "name": self.name,
            "status": self.status,
            "startDate": START,
            "input": '{"training": {"epochs": 2}}',
            "ResponseMetadata": {"HTTPHeaders": {"x-kelpie-time-scale": "30"}},
            **ended,
            **failed,
            **output,
        }

    def get_execution_history(self, **_: Any) -> dict[str, Any]:
        return {"events": events(self.steps, self.data)}

    def describe_state_machine_for_execution(self, **_: Any) -> dict[str, Any]:
        return {"definition": json.dumps(DEFINITION)}

    def describe_training_job(self, **_: Any) -> dict[str, Any]:
        return self.job

    def describe_endpoint(self, **_: Any) -> dict[str, Any]:
        return {"EndpointName": "kelpie", "ProductionVariants": [{"CurrentInstanceCount": 1}]}

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {"logStreams": [{"logStreamName": "kelpie-1-0/algo-1-1"}]}

    def get_log_events(self, **request: Any) -> dict[str, Any]:
        lines = [] if "nextToken" in request else [{"message": line} for line in self.log]
        return {"events": lines, "nextForwardToken": "end"}

    def get_paginator(self, _name: str) -> Any:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        stamp = int(START.timestamp() * 1000)
        return [
            {
                "events": [
                    {"eventId": str(i), "logStreamName": "kelpie-1-0/algo-1-1", "timestamp": stamp, "message": line}
                    for i, line in enumerate(self.log)
                ]
            }
        ]

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        return {"KeyCount": 0}

    def get_object(self, **_: Any) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.archive)}
