"""One execution at a time, and no execution that ended badly stands in the way of the next."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from integration.clouds import own_cloud
from integration.harness import LocalCloud, eventually

from workflow import executions
from workflow.config import Config

pytestmark = pytest.mark.slow

LONG = {"epochs": 200, "trainable": "all"}
BRIEF: dict[str, dict[str, Any]] = {"training": {"epochs": 1}, "gate": {"min_test_accuracy": 1.0}}
"""The gate ends it: what is shown is that it came so far."""


def visited(local_cloud: LocalCloud, arn: str) -> list[str]:
    return [visit.name for visit in executions.describe(local_cloud.account, arn).visits]


def lock_owner(local_cloud: LocalCloud) -> str:
    """Who holds the lock; empty when it is free."""
    answer = local_cloud.account.client("dynamodb").get_item(
        TableName=local_cloud.outputs.lock_table, Key={"pk": {"S": "kelpie"}}
    )
    return str(answer.get("Item", {}).get("owner", {}).get("S", ""))


def running_jobs(local_cloud: LocalCloud) -> list[str]:
    client = local_cloud.account.client("sagemaker")
    listed = client.list_training_jobs()["TrainingJobSummaries"]
    return [job["TrainingJobName"] for job in listed if job["TrainingJobStatus"] in ("InProgress", "Stopping")]


def start_training(local_cloud: LocalCloud) -> str:
    """An execution that trains for long; its hosts run."""
    arn = local_cloud.start(training=LONG)
    eventually(lambda: len(local_cloud.process_ids("*/algo-*")) == 2, "the training processes", 120)
    assert lock_owner(local_cloud) == arn
    return arn


def assert_the_lock_gets_free(local_cloud: LocalCloud) -> None:
    """Nobody holds it, or only the sweep for a moment, in the name of the one that it was taken over from."""
    eventually(lambda: lock_owner(local_cloud) == "", "the end of the sweep", 60)


def assert_the_next_one_runs(local_cloud: LocalCloud, stale: str) -> None:
    """Nothing of the ended execution still runs, and the next one takes its lock over and gives it back."""
    eventually(lambda: not local_cloud.process_ids("*/algo-*"), "the end of the training processes", 60)
    eventually(lambda: running_jobs(local_cloud) == [], "the end of the training job", 60)
    assert lock_owner(local_cloud) in ("", stale)
    following = local_cloud.run(**BRIEF)
    assert "QualityGateRefused" in {visit.name for visit in following.visits}, f"{following.error}: {following.cause}"
    assert_the_lock_gets_free(local_cloud)
    assert running_jobs(local_cloud) == []
    assert local_cloud.process_ids("*/algo-*") == set()


@contextmanager
def machine_that_times_out(local_cloud: LocalCloud, seconds: int) -> Iterator[None]:
    """For a while the state machine may run this long only: its own definition with another TimeoutSeconds."""
    client, arn = local_cloud.account.client("stepfunctions"), local_cloud.outputs.state_machine_arn
    deployed = client.describe_state_machine(stateMachineArn=arn)["definition"]
    changed = json.dumps({**json.loads(deployed), "TimeoutSeconds": seconds})
    client.update_state_machine(stateMachineArn=arn, definition=changed)
    try:
        yield
    finally:
        client.update_state_machine(stateMachineArn=arn, definition=deployed)


def test_of_two_executions_at_once_the_second_is_refused_and_names_the_first(local_cloud: LocalCloud) -> None:
    first = start_training(local_cloud)
    second = local_cloud.run()
    assert (second.status, second.error) == ("FAILED", "LockHeld")
    assert first in second.cause
    assert "CheckData" not in {visit.name for visit in second.visits}
    assert lock_owner(local_cloud) == first
    assert len(local_cloud.process_ids("*/algo-*")) == 2, "the refused one touched the other's training"
    executions.stop(local_cloud.account, first)
    assert local_cloud.wait(first).status == "ABORTED"
    assert_the_next_one_runs(local_cloud, first)


def test_an_execution_that_times_out_does_not_block_the_next(local_cloud: LocalCloud) -> None:
    with machine_that_times_out(local_cloud, 45):
        timed_out = start_training(local_cloud)
        assert local_cloud.wait(timed_out).status == "TIMED_OUT"
    assert "CleanUp" not in visited(local_cloud, timed_out)
    assert_the_next_one_runs(local_cloud, timed_out)


def test_an_execution_that_may_wait_has_its_turn_after_the_first(tmp_path: Path, dogs_folder: Path) -> None:
    settings = Config.model_validate({"lock": {"when_held": "wait"}})
    with own_cloud(tmp_path / "local", settings, dogs_folder) as waiting:
        first = start_training(waiting)
        second = waiting.start(**BRIEF)
        eventually(lambda: visited(waiting, second).count("WaitForLock") >= 2, "the second one to wait", 60)
        assert lock_owner(waiting) == first
        executions.stop(waiting.account, first)
        ended = waiting.wait(second)
        names = [visit.name for visit in ended.visits]
        # Whichever is quicker: the second takes the lock over, or the sweep after the first sets it free.
        assert {"TakeOverLock", "AcquireFreedLock"} & set(names)
        assert "QualityGateRefused" in names, f"{ended.error}: {ended.cause}"
        assert_the_lock_gets_free(waiting)


def test_after_kill_9_of_the_cloud_in_mid_training_the_next_start_runs(tmp_path: Path, dogs_folder: Path) -> None:
    home = tmp_path / "local"
    with own_cloud(home, Config(), dogs_folder) as killed:
        start_training(killed)
        supervisor = psutil.Process(killed.connection.pid)
        family = supervisor.children(recursive=True)
        os.kill(killed.connection.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs([supervisor, *family], timeout=10)
        assert alive == []
    with own_cloud(home, Config(), dogs_folder) as following:
        assert_the_next_one_runs(following, "")
