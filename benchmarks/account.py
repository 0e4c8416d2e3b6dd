"""A local cloud with the stack deployed, for the scripts that measure on one, and executions there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import ChildFailed
from benchmarks.reaper import ended_with_me
from workflow import datasets, executions
from workflow.account import Account
from workflow.config import Config
from workflow.deployment import stack
from workflow.deployment.stack import StackOutputs
from workflow.local import cloud

TIME_SCALE = 30.0
_EXECUTION_SECONDS = 900
SMALL: dict[str, Any] = {
    "training": {"epochs": 2, "image_size": 96},
    "gate": {"min_test_accuracy": 0.0, "max_regression": 1.0},
    "smoke_test": {"min_accuracy": 0.0, "max_latency_ms": 10_000},
}
"""An execution of which all but the training takes as long as ever."""


@dataclass(frozen=True)
class LocalAccount:
    """An account of a local cloud, with IAM, and what the stack made there."""

    account: Account
    outputs: StackOutputs

    def execute(self, pictures: Path) -> executions.Execution:
        """Run the state machine on a folder of pictures to its end.

        Raises:
            ChildFailed: it does not succeed.
        """
        place = datasets.upload(self.account, self.outputs.data_bucket, pictures)
        arn = executions.start(self.account, self.outputs.state_machine_arn, {"data": {"s3_uri": place}, **SMALL})
        return self.wait(arn)

    def wait(self, arn: str) -> executions.Execution:
        """Wait until an execution has succeeded."""
        client = self.account.client("stepfunctions")
        deadline = time.monotonic() + _EXECUTION_SECONDS
        while (status := client.describe_execution(executionArn=arn)["status"]) == "RUNNING":
            if time.monotonic() > deadline:
                raise ChildFailed(f"{arn} still runs after {_EXECUTION_SECONDS} s")
            time.sleep(0.05)
        execution = executions.describe(self.account, arn)
        if status != "SUCCEEDED":
            raise ChildFailed(f"{arn} {status}: {execution.error} {execution.cause}")
        return execution


@contextmanager
def local_account(home: Path) -> Iterator[LocalAccount]:
    """A local cloud in `home` for the time of the block."""
    with ended_with_me(home):
        account = cloud.up(home, time_scale=TIME_SCALE).account()
        yield LocalAccount(account, stack.deploy(account, Config()))
