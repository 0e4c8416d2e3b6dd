"""Temporary resources for experiments, made under one prefix, by which left_overs.py finds and removes them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from workflow.account import Account
from workflow.errors import KelpieError
from workflow.verify_aws.left_overs import PREFIX, remove

ROLE_PATIENCE_SECONDS = 60
"""How long a new role may take until other services may use it."""

EXECUTION_PATIENCE_SECONDS = 300

_POLL_SECONDS = 1.0
_ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


class Lab:
    """Makes temporary resources; a context manager that removes them all when it is left, however that happens."""

    def __init__(self, account: Account, project: str, *, patience: float = 1.0) -> None:
        """`patience` multiplies every waiting time; a local cloud needs less than AWS."""
        self.account = account
        self.project = project
        self.patience = patience
        self.prefix = f"{PREFIX}{uuid.uuid4().hex[:8]}-"
        self._count = 0

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.account, self.project, self.prefix)

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
