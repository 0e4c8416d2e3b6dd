"""Spot capacity without checkpoints is refused by construction: no setting leads to such a training job.

SageMaker itself bounds such jobs only for its built-in algorithms (MaxWaitTimeInSeconds of at most 3600), so the rule
is Kelpie's own. Source: SageMaker developer guide, "Managed spot training in Amazon SageMaker AI", read 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from workflow import definition
from workflow.config import Config
from workflow.execution_input import TrainingSettings


def training_requests(config: Config) -> Iterator[dict[str, Any]]:
    """The Parameters of every state that creates a training job."""
    states = json.loads(definition.render(config))["States"].values()
    for state in states:
        if "createTrainingJob" in str(state.get("Resource")):
            yield state["Parameters"]


@pytest.mark.parametrize("managed_spot", [True, False])
def test_every_training_job_keeps_checkpoints_whether_it_runs_on_spot_or_not(managed_spot: bool) -> None:
    config = Config(training=TrainingSettings(managed_spot=managed_spot))
    requests = list(training_requests(config))
    assert len(requests) >= 2, "one on spot, one on demand"
    assert any(request.get("EnableManagedSpotTraining") is True for request in requests)
    for request in requests:
        kept = request["CheckpointConfig"]
        assert kept["LocalPath"] == "/opt/ml/checkpoints"
        assert kept.get("S3Uri.$") == "$.names.checkpoint_s3_uri"


def test_checkpoints_can_be_made_seldom_but_not_switched_off() -> None:
    rules = TrainingSettings.model_json_schema()["properties"]["checkpoint_interval_steps"]
    assert rules["minimum"] == 1
    assert "null" not in json.dumps(rules)
