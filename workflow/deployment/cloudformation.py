"""One CloudFormation stack: its state, its change sets, its events. The same for AWS and for the local cloud."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from botocore.exceptions import ClientError

from workflow.account import Account, flag
from workflow.deployment import change_set
from workflow.deployment.change_set import ChangeSet
from workflow.errors import KelpieError

_POLL_SECONDS = 2.0
_START_SECONDS = 60.0
"""How long the first event of a change set's execution is waited for."""
_NEVER_CREATED = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"})
_SUCCESS = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"})
_NOTHING_TO_CHANGE = ("didn't contain changes", "No updates are to be performed")
_CONSEQUENCE = re.compile(
    r"Resource (creation|update|deletion) cancelled|The following resource\(s\) failed to (create|update|delete)", re.I
)
"""Reasons of events that only say that something else had failed.

Source: events quoted in public guides and code, looked up 2026-11-22; no page of AWS that lists them was found.
"""
_HANDLER_MESSAGE = re.compile(
    r'Resource handler returned message: "(?P<message>.*)" \(RequestToken: [^,)]*, HandlerErrorCode: (?P<code>\w+)\)',
    re.S,
)


@dataclass(frozen=True)
class StackEvent:
    """One step of a deployment: a resource of the stack, or an uploaded asset (`resource_type` "asset")."""

    resource: str
    resource_type: str
    status: str
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.status.lower().replace("_", " "), self.resource, self.reason)))


OnEvent = Callable[[StackEvent], None]


def ignore(_: StackEvent) -> None:
    """Report nothing."""


class CloudFormationStack:
    """One stack, and the events of it that were already reported."""

    def __init__(self, account: Account, name: str, on_event: OnEvent = ignore) -> None:
        self._client = account.client("cloudformation")
        self._flag = flag(account)
        self.name = name
        self._on_event = on_event
        self._seen: set[str] = set()

    # --- what is ------------------------------------------------------------------------------------------------

    def describe(self, name_or_id: str | None = None) -> dict[str, Any] | None:
        """What DescribeStacks answers, or None when there is no such stack."""
        try:
            stacks: list[dict[str, Any]] = self._client.describe_stacks(StackName=name_or_id or self.name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise KelpieError(f"The stack {self.name} cannot be read", str(error)) from error
        return stacks[0]

    def status(self) -> str | None:
        """The stack's status, or None when there is no such stack."""
        stack = self.describe()
        return stack["StackStatus"] if stack else None

    def outputs(self) -> dict[str, str]:
        """The outputs by their keys; none when there is no such stack."""
        stack = self.describe() or {}
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}

    def parameters(self) -> dict[str, str]:
        """The parameters as the stack has them; none when there is no such stack."""
        return _parameters(self.describe())

    def resources(self, stack_id: str | None = None) -> list[dict[str, Any]]:
        """Its resources, as ListStackResources answers; a deleted stack is found by its id."""
        pages = self._client.get_paginator("list_stack_resources").paginate(StackName=stack_id or self.name)
        return [resource for page in pages for resource in page["StackResourceSummaries"]]

    # --- what to change -----------------------------------------------------------------------------------------

    def prepare(self) -> bool:
        """Bring the stack into a state from which a change set can start; tell whether there is a stack.

        A stack whose creation failed, or that an interrupted change set left behind, is deleted: it has nothing.

        Raises:
            KelpieError: somebody else is changing it, or what failed earlier cannot be undone.
        """
        status = self.status()
        if status == "REVIEW_IN_PROGRESS" or status in _NEVER_CREATED:
            self._on_event(StackEvent(self.name, "stack", status, "is left from an earlier attempt and is removed"))
            self.delete()
            return False
        if status == "UPDATE_ROLLBACK_FAILED":
            self._continue_rollback()
        elif status == "DELETE_FAILED":
            raise KelpieError(
                f"The stack {self.name} was to be deleted, and some of it could not be",
                f"Its status is {status}; such a stack cannot be updated.",
                f"Finish that first: kelpie destroy{self._flag}",
            )
        elif status is not None and status.endswith("_IN_PROGRESS"):
            raise KelpieError(
                f"The stack {self.name} is being changed by somebody else",
                f"Its status is {status}.",
                "Wait until it is done, then deploy again.",
            )
        return status is not None

    def propose(self, given: Iterable[Mapping[str, Any]], **template: Any) -> ChangeSet | None:
        """Make a change set of a template (`TemplateBody`, `TemplateURL` or `UsePreviousTemplate`) and parameters.

        Returns None when it would change nothing.

        Raises:
            KelpieError: CloudFormation refuses the template or the parameters.
        """
        stack = self.describe()
        before, creates_stack = _parameters(stack), stack is None
        try:
            answer = self._client.create_change_set(
                StackName=self.name,
                ChangeSetName=f"kelpie-{uuid.uuid4().hex}",
                ChangeSetType="CREATE" if creates_stack else "UPDATE",
                Parameters=list(given),
                Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
                **template,
            )
            described = self._wait_for_change_set(answer["Id"])
        except ClientError as error:
            if any(words in str(error) for words in _NOTHING_TO_CHANGE):
                return None
            raise KelpieError(f"The stack {self.name} cannot be changed", str(error)) from error
        if described["Status"] == "FAILED":
            reason = described.get("StatusReason", "")
            self._discard(answer["Id"], creates_stack)
            if any(words in reason for words in _NOTHING_TO_CHANGE):
                return None
            raise KelpieError(
                f"CloudFormation cannot make a change set for the stack {self.name}",
                reason,
                "Correct the cause, then deploy again.",
            )
        return change_set.read(described, self._changes(answer["Id"], described), creates_stack, before)

    def discard(self, proposed: ChangeSet) -> None:
        """Delete a change set that is not wanted, and the empty stack that it was to create."""
        self._discard(proposed.arn, proposed.creates_stack)

    def execute(self, proposed: ChangeSet) -> None:
        """Execute a change set and wait.

        Raises:
            KelpieError: it fails; the error names the resource that failed first, and why.
        """
        stack = self.describe()
        assert stack is not None
        self._seen |= {event["EventId"] for event in self._events(stack["StackId"])}
        self._client.execute_change_set(ChangeSetName=proposed.arn, StackName=self.name)
        self._wait(stack["StackId"], "created" if proposed.creates_stack else "updated")

    def delete(self) -> None:
        """Delete the stack and wait."""
        stack = self.describe()
        assert stack is not None
        self._seen |= {event["EventId"] for event in self._events(stack["StackId"])}
        self._client.delete_stack(StackName=self.name)
        self._wait(stack["StackId"], "deleted")

    # --- how ----------------------------------------------------------------------------------------------------

    def _discard(self, arn: str, creates_stack: bool) -> None:
        self._client.delete_change_set(ChangeSetName=arn, StackName=self.name)
        if creates_stack and self.status() == "REVIEW_IN_PROGRESS":
            self.delete()

    def _wait_for_change_set(self, arn: str) -> dict[str, Any]:
        pauses_seconds = _pauses_seconds()
        while True:
            described: dict[str, Any] = self._client.describe_change_set(ChangeSetName=arn, StackName=self.name)
            if described["Status"] in ("CREATE_COMPLETE", "FAILED"):
                return described
            time.sleep(next(pauses_seconds))

    def _changes(self, arn: str, page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """All of a change set, of which `page` is the first answer."""
        changes = list(page.get("Changes", ()))
        while "NextToken" in page:
            page = self._client.describe_change_set(ChangeSetName=arn, StackName=self.name, NextToken=page["NextToken"])
            changes += page.get("Changes", ())
        return [change for change in changes if "ResourceChange" in change]

    def _continue_rollback(self) -> None:
        """UPDATE_ROLLBACK_FAILED: the stack takes no change before its last rollback is complete."""
        stack = self.describe()
        assert stack is not None
        self._on_event(StackEvent(self.name, "stack", stack["StackStatus"], "its rollback is continued first"))
        self._seen |= {event["EventId"] for event in self._events(stack["StackId"])}
        self._client.continue_update_rollback(StackName=self.name)
        try:
            self._wait(stack["StackId"], "rolled back", good=frozenset({"UPDATE_ROLLBACK_COMPLETE"}))
        except KelpieError as error:
            raise KelpieError(
                error.headline,
                error.detail,
                "Correct the cause and deploy again, or leave that resource out: aws cloudformation "
                f"continue-update-rollback --stack-name {self.name} --resources-to-skip RESOURCE",
            ) from error

    def _events(self, stack: str) -> list[dict[str, Any]]:
        """All events of a stack, oldest first."""
        pages = self._client.get_paginator("describe_stack_events").paginate(StackName=stack)
        events = [event for page in pages for event in page["StackEvents"]]
        events.reverse()  # AWS lists the newest first; of one instant too, where sorting alone would keep that order
        return sorted(events, key=lambda event: event["Timestamp"])

    def _wait(self, stack_id: str, participle: str, good: frozenset[str] = _SUCCESS) -> None:
        """Wait by the stack's id, which stays valid after its deletion, and report its events."""
        failures: list[StackEvent] = []
        begun = False
        deadline = time.monotonic() + _START_SECONDS
        pauses_seconds = _pauses_seconds()
        while True:
            stack = self.describe(stack_id)
            assert stack is not None
            for event in self._events(stack_id):
                if event["EventId"] not in self._seen:
                    begun = True
                    self._seen.add(event["EventId"])
                    step = StackEvent(
                        event["LogicalResourceId"],
                        event["ResourceType"],
                        event["ResourceStatus"],
                        _plain(event.get("ResourceStatusReason") or ""),
                    )
                    failures += [step] if step.status.endswith("_FAILED") else []
                    self._on_event(step)
            # Right after a request the status can still be the earlier one.
            if not stack["StackStatus"].endswith("_IN_PROGRESS") and (begun or time.monotonic() > deadline):
                break
            time.sleep(next(pauses_seconds))
        if stack["StackStatus"] not in good:
            first = first_cause(failures) or StackEvent(self.name, "stack", stack["StackStatus"])
            raise KelpieError(
                f"The stack {self.name} was not {participle}: {first.resource} ({first.resource_type}) failed",
                first.reason or stack.get("StackStatusReason") or f"The stack's status is {stack['StackStatus']}.",
                "Correct the cause, then deploy again.",
            )


def _parameters(stack: Mapping[str, Any] | None) -> dict[str, str]:
    return {one["ParameterKey"]: one.get("ParameterValue", "") for one in (stack or {}).get("Parameters", ())}


def _pauses_seconds() -> Iterator[float]:
    """Short ones at first, because the local cloud has a stack in seconds; then what AWS's request rates allow."""
    return chain(repeat(0.2, 15), repeat(_POLL_SECONDS))


def first_cause(failures: Iterable[StackEvent]) -> StackEvent | None:
    """The first failure that is not just the consequence of another one; the first of all if each is."""
    listed = list(failures)
    real = (event for event in listed if event.reason and not _CONSEQUENCE.search(event.reason))
    return next(real, listed[0] if listed else None)


def _plain(reason: str) -> str:
    """A resource handler's reason without its wrapping."""
    return _HANDLER_MESSAGE.sub(lambda match: f"{match['message']} ({match['code']})", reason)
