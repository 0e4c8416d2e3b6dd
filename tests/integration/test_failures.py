"""Executions that must fail, and leave the account as it was."""

from __future__ import annotations

import os
import signal

from integration.harness import LocalCloud, eventually, left_behind

from workflow import executions
from workflow.summary import summarize, to_text


def test_an_unknown_key_ends_the_execution_before_anything_is_created(local_cloud: LocalCloud) -> None:
    execution = local_cloud.run(training={"epoch": 3})
    assert execution.status == "FAILED"
    assert "training" in execution.cause
    assert "epoch" in execution.cause
    assert {visit.name for visit in execution.visits} & {"AcquireLock", "CheckData", "Train"} == set()


def test_killing_the_second_host_fails_the_job_and_leaves_nothing(local_cloud: LocalCloud) -> None:
    arn = local_cloud.start(training={"epochs": 200, "trainable": "all"})

    def training() -> bool:
        name = executions.describe(local_cloud.account, arn).training_job
        return bool(name and executions.loss_curve(executions.training_log(local_cloud.account, name)))

    eventually(training, "the first training step", 90)
    (second_host,) = local_cloud.process_ids("*/algo-2")
    os.kill(second_host, signal.SIGKILL)
    execution = local_cloud.wait(arn)
    assert execution.status == "FAILED"
    assert "Train" in execution.cause
    assert local_cloud.training_job(execution)["TrainingJobStatus"] == "Failed"
    summary = summarize(local_cloud.account, execution)
    assert any("host=algo-2" in line for line in summary["log_tail"]), "not the log of the host that failed first"
    assert to_text(summary).startswith(f"{execution.cause}\n  | ")
    assert left_behind(local_cloud, execution) == []
    assert local_cloud.process_ids("*/algo-*") == set()


def test_without_permission_to_read_the_data_the_job_fails_with_access_denied(local_cloud: LocalCloud) -> None:
    with local_cloud.without_action("TrainingRole", "s3:GetObject"):
        execution = local_cloud.run()
    assert execution.status == "FAILED"
    assert "AccessDenied" in execution.cause
    assert "s3:GetObject" in execution.cause
    assert "Train" in {visit.name for visit in execution.visits}
    assert left_behind(local_cloud, execution) == []


def test_a_stopped_execution_stops_its_job_and_does_not_block_the_next(local_cloud: LocalCloud) -> None:
    arn = local_cloud.start(training={"epochs": 200, "trainable": "all"})
    eventually(lambda: bool(local_cloud.process_ids("*/algo-*")), "the training processes", 90)
    executions.stop(local_cloud.account, arn)
    assert local_cloud.wait(arn).status == "ABORTED"
    eventually(lambda: not local_cloud.process_ids("*/algo-*"), "the end of the training processes", 60)
    following = local_cloud.run(training={"epochs": 1}, gate={"min_test_accuracy": 1.0})
    assert "QualityGate" in {visit.name for visit in following.visits}, "the stale lock was not taken over"
    assert following.status == "FAILED", "the gate passed a model below its threshold"
