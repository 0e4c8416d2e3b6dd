"""Temporary resources for experiments: made under one prefix, and found and removed by that prefix.

Removal does not rely on a list of what was made, so it works for a run that was cut off, too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from workflow.account import Account
from workflow.errors import KelpieError

PREFIX = "kelpie-verify-"
"""How the name of everything begins that is made here; nothing else of the project is called so."""

ROLE_PATIENCE_SECONDS = 60
"""How long a new role may take until other services may use it."""

EXECUTION_PATIENCE_SECONDS = 300

_POLL_SECONDS = 1.0
_BUSY = ("InProgress", "Stopping")
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


@dataclass(frozen=True)
class LeftOver:
    """One temporary resource that is still there."""

    kind: str
    name: str
    remove: Callable[[], Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Lab:
    """Makes temporary resources; a context manager that removes them all when it is left, however that happens."""

    def __init__(self, account: Account, *, patience: float = 1.0) -> None:
        """`patience` multiplies every waiting time; a local cloud needs less than AWS."""
        self.account = account
        self.patience = patience
        self.prefix = f"{PREFIX}{uuid.uuid4().hex[:8]}-"
        self._count = 0

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.account, self.prefix)

    def name(self, kind: str) -> str:
        """A name of this run that nothing else has."""
        self._count += 1
        return f"{self.prefix}{kind}-{self._count}"

    def role(self, service: str, statements: list[dict[str, Any]]) -> str:
        """A role that a service may assume and that may do just this; its ARN."""
        iam, name = self.account.client("iam"), self.name("role")
        trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        arn: str = iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=_policy([trust]),
            Description="Temporary: kelpie verify-aws",
        )["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="experiment", PolicyDocument=_policy(statements))
        return arn

    def machine(self, states: dict[str, Any], statements: list[dict[str, Any]]) -> str:
        """A state machine of these states, the first one first, that may do just this; its ARN."""
        role = self.role("states.amazonaws.com", statements)
        definition = json.dumps({"StartAt": next(iter(states)), "States": states})
        name, client = self.name("machine"), self.account.client("stepfunctions")
        made = self.patiently(
            lambda: client.create_state_machine(name=name, definition=definition, roleArn=role, type="STANDARD"),
            "AccessDenied",
        )
        return str(made["stateMachineArn"])

    def execute(self, machine: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Start an execution and wait for its end: its description and its history."""
        client = self.account.client("stepfunctions")
        arn = client.start_execution(stateMachineArn=machine, input="{}")["executionArn"]
        return self.ended(arn)

    def ended(self, execution: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The description and the history of an execution, once it has ended."""
        client = self.account.client("stepfunctions")

        def describe() -> dict[str, Any] | None:
            described: dict[str, Any] = client.describe_execution(executionArn=execution)
            return described if described["status"] in _ENDED else None

        described = self.wait(describe, EXECUTION_PATIENCE_SECONDS, f"the end of {execution}")
        pages = client.get_paginator("get_execution_history").paginate(executionArn=execution)
        return described, [event for page in pages for event in page["events"]]

    def first_execution(self, machine: str, seconds: float) -> dict[str, Any]:
        """The first execution of a state machine that somebody else starts."""
        client = self.account.client("stepfunctions")

        def look() -> dict[str, Any] | None:
            found = client.list_executions(stateMachineArn=machine)["executions"]
            return found[0] if found else None

        return self.wait(look, seconds, f"an execution of {machine}")

    def patiently(self, call: Callable[[], Any], refusal: str) -> Any:
        """Call until it is not refused any more, because a new role is not known everywhere at once."""
        end = time.monotonic() + ROLE_PATIENCE_SECONDS * self.patience
        while True:
            try:
                return call()
            except ClientError as error:
                if refusal not in error.response["Error"]["Code"] or time.monotonic() > end:
                    raise
                time.sleep(_POLL_SECONDS * self.patience)

    def wait(self, look: Callable[[], dict[str, Any] | None], seconds: float, awaited: str) -> dict[str, Any]:
        """Look until there is something.

        Raises:
            KelpieError: It took too long.
        """
        end = time.monotonic() + seconds * self.patience
        while True:
            found = look()
            if found is not None:
                return found
            if time.monotonic() > end:
                raise KelpieError(f"waited {seconds * self.patience:.0f} s in vain for {awaited}")
            time.sleep(_POLL_SECONDS * self.patience)


def _policy(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def left_overs(account: Account, prefix: str = PREFIX) -> list[LeftOver]:
    """What is still there under a prefix, in the order in which it can be removed."""
    kinds = (_schedules, _rules, _machines, _jobs, _roles)
    return [one for kind in kinds for one in kind(account, prefix)]


def remove(account: Account, prefix: str = PREFIX) -> list[str]:
    """Remove everything under a prefix, and name it.

    Raises:
        KelpieError: something is still there; it names what, and the command that tries again.
    """
    removed, failures = [], []
    for one in left_overs(account, prefix):
        try:
            one.remove()
            removed.append(str(one))
        except ClientError as error:
            failures.append(f"{one}: {error}")
    still_there = [str(one) for one in left_overs(account, prefix)]
    if still_there:
        raise KelpieError(
            f"verify-aws could not remove {', '.join(still_there)}",
            "\n".join(failures),
            "kelpie verify-aws --clean-up",
        )
    return removed


def _schedules(account: Account, prefix: str) -> Iterator[LeftOver]:
    client = account.client("scheduler")
    for page in client.get_paginator("list_schedules").paginate(NamePrefix=prefix):
        for name in [one["Name"] for one in page["Schedules"]]:
            if name.startswith(prefix):
                yield LeftOver("schedule", name, partial(client.delete_schedule, Name=name))


def _rules(account: Account, prefix: str) -> Iterator[LeftOver]:
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


def _machines(account: Account, prefix: str) -> Iterator[LeftOver]:
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


def _jobs(account: Account, prefix: str) -> Iterator[LeftOver]:
    """Training jobs that still run; one that has ended costs nothing, and where its record can be deleted, it is."""
    client = account.client("sagemaker")

    def end(name: str) -> None:
        deadline = time.monotonic() + EXECUTION_PATIENCE_SECONDS
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


def _roles(account: Account, prefix: str) -> Iterator[LeftOver]:
    client = account.client("iam")

    def delete(name: str) -> None:
        for policy in client.list_role_policies(RoleName=name)["PolicyNames"]:
            client.delete_role_policy(RoleName=name, PolicyName=policy)
        client.delete_role(RoleName=name)

    for page in client.get_paginator("list_roles").paginate():
        for name in [one["RoleName"] for one in page["Roles"]]:
            if name.startswith(prefix):
                yield LeftOver("role", name, partial(delete, name))
