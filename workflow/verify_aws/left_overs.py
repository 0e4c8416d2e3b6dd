"""What experiments have made and is still there: found by the prefix of its name, and removed.

Removal does not rely on a list of what was made, so it works for a run that was cut off, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from workflow.account import Account
from workflow.deployment import inventory
from workflow.errors import KelpieError
from workflow.executions import TRAINING_LOG_GROUP

PREFIX = "kelpie-verify-"
"""How the name of everything begins that experiments make; nothing else of the project is called so."""

RUNS = "runs/"
"""Where in the artifact bucket a training job of an experiment may write: the training role may not elsewhere."""

_JOB_PATIENCE_SECONDS = 300
_POLL_SECONDS = 1.0
_BUSY = ("InProgress", "Stopping")


@dataclass(frozen=True)
class LeftOver:
    """One temporary resource that is still there."""

    kind: str
    name: str
    remove: Callable[[], Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def left_overs(account: Account, project: str, prefix: str = PREFIX) -> list[LeftOver]:
    """What is still there under a prefix, in the order in which it can be removed; `project` has the bucket."""
    return [one for kind in _KINDS for one in kind(account, project, prefix)]


def remove(account: Account, project: str, prefix: str = PREFIX) -> list[str]:
    """Remove everything under a prefix, and name it.

    Each kind is looked for after the one before it is gone: what a state machine starts comes to its end first.

    Raises:
        KelpieError: something is still there; it names what, and the command that tries again.
    """
    removed, failures = [], []
    for kind in _KINDS:
        for one in list(kind(account, project, prefix)):
            try:
                one.remove()
                removed.append(str(one))
            except ClientError as error:
                failures.append(f"{one}: {error}")
    still_there = [str(one) for one in left_overs(account, project, prefix)]
    if still_there:
        raise KelpieError(
            f"verify-aws could not remove {', '.join(still_there)}",
            "\n".join(failures),
            "kelpie verify-aws --clean-up",
        )
    return removed


def _schedules(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    client = account.client("scheduler")
    for page in client.get_paginator("list_schedules").paginate(NamePrefix=prefix):
        for name in [one["Name"] for one in page["Schedules"]]:
            if name.startswith(prefix):
                yield LeftOver("schedule", name, partial(client.delete_schedule, Name=name))


def _rules(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    client = account.client("events")

    def delete(name: str) -> None:
        targets = [target["Id"] for target in client.list_targets_by_rule(Rule=name)["Targets"]]
        if targets:
            client.remove_targets(Rule=name, Ids=targets)
        client.delete_rule(Name=name)

    for page in client.get_paginator("list_rules").paginate(NamePrefix=prefix):
        for name in [one["Name"] for one in page["Rules"]]:
            if name.startswith(prefix):
                yield LeftOver("rule", name, partial(delete, name))


def _machines(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    client = account.client("stepfunctions")

    def delete(arn: str) -> None:
        for one in client.list_executions(stateMachineArn=arn, statusFilter="RUNNING")["executions"]:
            client.stop_execution(executionArn=one["executionArn"])
        client.delete_state_machine(stateMachineArn=arn)

    def is_going(arn: str) -> bool:
        try:
            return bool(client.describe_state_machine(stateMachineArn=arn)["status"] == "DELETING")
        except client.exceptions.StateMachineDoesNotExist:
            return True

    for page in client.get_paginator("list_state_machines").paginate():
        for one in page["stateMachines"]:
            if one["name"].startswith(prefix) and not is_going(one["stateMachineArn"]):
                arn = one["stateMachineArn"]
                yield LeftOver("state machine", one["name"], partial(delete, arn))


def _jobs(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    """Training jobs that still run; one that has ended costs nothing, and where its record can be deleted, it is."""
    client = account.client("sagemaker")

    def end(name: str) -> None:
        deadline = time.monotonic() + _JOB_PATIENCE_SECONDS
        while (status := client.describe_training_job(TrainingJobName=name)["TrainingJobStatus"]) in _BUSY:
            if status == "InProgress":
                client.stop_training_job(TrainingJobName=name)
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_SECONDS)
        with suppress(ClientError):
            client.delete_training_job(TrainingJobName=name)

    for page in client.get_paginator("list_training_jobs").paginate(NameContains=prefix):
        for job in page["TrainingJobSummaries"]:
            name = job["TrainingJobName"]
            if name.startswith(prefix) and job["TrainingJobStatus"] in _BUSY:
                yield LeftOver("training job", name, partial(end, name))


def _endpoint_configs(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    """The one of `generic-errors`, should SageMaker accept a config of a model that does not exist."""
    client = account.client("sagemaker")
    for page in client.get_paginator("list_endpoint_configs").paginate(NameContains=prefix):
        for name in [one["EndpointConfigName"] for one in page["EndpointConfigs"]]:
            if name.startswith(prefix):
                yield LeftOver("endpoint config", name, partial(client.delete_endpoint_config, EndpointConfigName=name))


def _objects(account: Account, project: str, prefix: str) -> Iterator[LeftOver]:
    """What a training job has written, every version: a bucket that outlived its stack is looked into, too."""
    client = account.client("s3")
    found = inventory.data(inventory.Scope(account, project))
    for bucket in [physical for name, physical in found.items() if name.startswith("ArtifactBucket ")]:
        for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=f"{RUNS}{prefix}"):
            for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                version = {"Key": one["Key"], "VersionId": one["VersionId"]}
                yield LeftOver(
                    "object", f"s3://{bucket}/{one['Key']}", partial(client.delete_object, Bucket=bucket, **version)
                )


def _log_streams(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    """Of training jobs: their log group is the whole account's."""
    client, group = account.client("logs"), TRAINING_LOG_GROUP
    pages = client.get_paginator("describe_log_streams").paginate(logGroupName=group, logStreamNamePrefix=prefix)
    try:
        names = [one["logStreamName"] for page in pages for one in page["logStreams"]]
    except ClientError as error:
        if not inventory.is_missing(error):  # no training job has ever run here
            raise
        return
    for name in names:
        yield LeftOver("log stream", name, partial(client.delete_log_stream, logGroupName=group, logStreamName=name))


def _roles(account: Account, _project: str, prefix: str) -> Iterator[LeftOver]:
    client = account.client("iam")

    def delete(name: str) -> None:
        for policy in client.list_role_policies(RoleName=name)["PolicyNames"]:
            client.delete_role_policy(RoleName=name, PolicyName=policy)
        client.delete_role(RoleName=name)

    for page in client.get_paginator("list_roles").paginate():
        for name in [one["RoleName"] for one in page["Roles"]]:
            if name.startswith(prefix):
                yield LeftOver("role", name, partial(delete, name))


_KINDS: tuple[Callable[[Account, str, str], Iterator[LeftOver]], ...] = (
    _schedules,
    _rules,
    _machines,
    _jobs,
    _endpoint_configs,
    _objects,
    _log_streams,
    _roles,
)
"""Every kind of thing that an experiment makes, in the order in which they can be removed."""
