"""Whatever dies first, no process of the local cloud stays."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
from integration.harness import eventually

from workflow import config, datasets, executions
from workflow.deployment import stack
from workflow.local import cloud


def test_kill_9_of_the_supervisor_in_mid_training_leaves_no_process(tmp_path: Path, dogs_folder: Path) -> None:
    settings = config.load(None)
    home = tmp_path / "local"
    connection = cloud.up(home, region=settings.aws.region, time_scale=60)
    try:
        account = connection.account()
        outputs = stack.deploy(account, settings, on_event=lambda _: None)
        uri = datasets.upload(account, outputs.data_bucket, dogs_folder)
        arn = executions.start(
            account,
            outputs.state_machine_arn,
            {"data": {"s3_uri": uri}, "training": {"epochs": 200, "trainable": "all"}},
        )

        def training() -> bool:
            name = executions.describe(account, arn).training_job
            return bool(name and executions.loss_curve(executions.training_log(account, name)))

        eventually(training, "the first training step", 120)
        supervisor = psutil.Process(connection.pid)
        family = supervisor.children(recursive=True)
        assert len(family) >= 4, "two hosts with their guards"
        os.kill(connection.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs([supervisor, *family], timeout=10)
        assert alive == []
    finally:
        cloud.down(home)
