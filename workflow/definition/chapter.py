"""What the chapters of the story are made of, and what several of them need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from workflow.config import Config
from workflow.sdk import (
    Catch,
    DynamoDBUpdateItemStep,
    Expr,
    State,
)
from workflow.words import retry

LAP_SECONDS = 30

CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack")


class Chapter(NamedTuple):
    """Some states of the story: where it begins, and the doors through which it goes on to the next chapter.

    A side door leads to a later chapter, past what is done already.
    """

    first: State
    doors: Sequence[Callable[[State], Any]] = ()
    side_doors: Sequence[tuple[Callable[[Config], Chapter], Callable[[State], Any]]] = ()


def warn(state: State, following: State) -> None:
    """A failure of this state is noted under `$.warnings`, and the story goes on."""
    state.add_catch(Catch(following, error_equals=["States.ALL"], result_path=f"$.warnings.{state.state_id}"))


def release_lock(state_id: str, config: Config) -> DynamoDBUpdateItemStep:
    """Let go of the lock, unless it is no longer ours. From whom it was taken over stays, for the Lambda `sweep`."""
    return DynamoDBUpdateItemStep(
        state_id,
        parameters={
            "TableName": "${LockTable}",
            "Key": {"pk": {"S": config.project.name}},
            "UpdateExpression": "REMOVE #owner, acquired_at",
            "ConditionExpression": "#owner = :me",
            "ExpressionAttributeNames": {"#owner": "owner"},
            "ExpressionAttributeValues": {":me": {"S": Expr("$$.Execution.Id")}},
        },
        timeout_seconds=60,
        retry=retry("dynamodb"),
        result_path=None,
    )
