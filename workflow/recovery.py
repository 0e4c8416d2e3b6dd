"""Go on from an execution that failed, or bring an earlier version back: what `kelpie resume` and `rollback` start.

Both start an ordinary execution of the state machine, whose input says what to take over; whether it can be taken over
is decided there, under the lock. Here is only found out what a person means, and refused what cannot work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from workflow import executions, listing, models
from workflow.account import Account, flag
from workflow.config import Config
from workflow.deployment.stack import StackOutputs
from workflow.errors import KelpieError
from workflow.execution_input import check_execution_input
from workflow.models import Version


@dataclass(frozen=True)
class Recovery:
    """An execution that was started, and what to expect of it, in one sentence for a person."""

    execution_arn: str
    expectation: str


def resume(account: Account, outputs: StackOutputs, config: Config, execution: str | None = None) -> Recovery:
    """Start an execution that goes on from what an earlier one trained.

    Args:
        account: Where it ran.
        outputs: What the stack made.
        config: The settings, for checking the input before anything is started.
        execution: Name or ARN of the earlier execution; None for the latest.

    Raises:
        KelpieError: there is no such execution, it still runs, it succeeded, it brought a version back, or it never
            started to train.
    """
    earlier = executions.describe(account, executions.find(account, outputs.state_machine_arn, execution))
    if earlier.running:
        raise KelpieError(
            f"execution {earlier.name} still runs",
            "only one that has ended can be resumed",
            f"wait for its end, or: kelpie stop {earlier.name}{flag(account)}",
        )
    if earlier.status == "SUCCEEDED":
        raise KelpieError(
            f"execution {earlier.name} succeeded: there is nothing to resume",
            "resumed are executions that ended FAILED, ABORTED or TIMED_OUT",
            f"kelpie start{flag(account) or ' --local'}",
        )
    version = _section(earlier.input, "rollback").get("model_package_arn")
    if version:
        raise KelpieError(
            f"execution {earlier.name} was a rollback: it trained nothing to go on from",
            f"{earlier.error}: {earlier.cause}" if earlier.error else "",
            f"kelpie rollback {version}{flag(account)}",
        )
    # One that only took over an earlier job has not created one of its own.
    job = earlier.training_job or _section(earlier.input, "resume").get("training_job")
    if not job:
        raise KelpieError(
            f"execution {earlier.name} ended before it began to train: there is nothing to resume",
            f"{earlier.error}: {earlier.cause}" if earlier.error else "",
            f"kelpie start{flag(account) or ' --local'}",
        )
    comment = listing.comment(f"kelpie resume of {earlier.name}")
    execution_input = {**earlier.input, "resume": {"training_job": job}, "Comment": comment}
    check_execution_input(execution_input, config.defaults())
    expectation = _expectation(account, str(job))
    arn = executions.start(account, outputs.state_machine_arn, execution_input)
    return Recovery(arn, expectation)


def rollback(account: Account, outputs: StackOutputs, config: Config, version: str | None = None) -> Recovery:
    """Start an execution that brings an earlier version back.

    Args:
        account: Where the versions are.
        outputs: What the stack made.
        config: The settings, for checking the input before anything is started.
        version: Number or ARN; None for the newest approved one that is older than the one that serves.

    Raises:
        KelpieError: there is no such version, it is not approved, it serves already, or none is older; the message
            lists the versions that there are.
    """
    versions = models.versions(account, outputs, config.project.name)
    now = next((found for found in versions if found.serves), None)
    chosen = _choose(versions, now, version, flag(account))
    execution_input = {"rollback": {"model_package_arn": chosen.arn}, "Comment": listing.comment("kelpie rollback")}
    check_execution_input(execution_input, config.defaults())
    arn = executions.start(account, outputs.state_machine_arn, execution_input)
    serves = f"now serves {now}" if now else "no version is recorded as the one that serves"
    return Recovery(arn, f"brings back version {chosen}; {serves}")


def _choose(versions: list[Version], serving: Version | None, wanted: str | None, flag: str) -> Version:
    listed = f"versions: {', '.join(map(str, versions)) or 'none'}"
    if wanted is None:
        if serving is None:
            raise KelpieError(
                "it is not recorded which version serves, so none is earlier",
                listed,
                f"name the version: kelpie rollback VERSION{flag}",
            )
        older = [
            version for version in versions if version.number < serving.number and version.approval_status == "Approved"
        ]
        if not older:
            raise KelpieError(
                f"there is no approved version older than {serving.number}, which serves",
                listed,
                f"name another version (kelpie rollback VERSION{flag}), or train a new one (kelpie start{flag})",
            )
        return older[0]
    for version in versions:
        if wanted in (str(version.number), version.arn):
            break
    else:
        raise KelpieError(
            f"there is no version {wanted!r}", listed, f"kelpie rollback VERSION{flag}, with one of these"
        )
    if version.approval_status != "Approved":
        raise KelpieError(
            f"version {version.number} is {version.approval_status}: only an Approved one can be brought back",
            listed,
            f"kelpie rollback VERSION{flag}, with one that is Approved",
        )
    if version.serves:
        raise KelpieError(
            f"version {version.number} serves already", listed, f"kelpie rollback VERSION{flag}, with another one"
        )
    return version


def _expectation(account: Account, job: str) -> str:
    """What becomes of the earlier job if data, code and settings are still the same."""
    try:
        status = account.client("sagemaker").describe_training_job(TrainingJobName=job)["TrainingJobStatus"]
    except ClientError as error:
        return f"trains from the beginning, because {job} cannot be described: {error}"
    if status == "Completed":
        return f"uses the model of {job} if data, code, settings and the model that serves are still the same"
    return f"goes on from the checkpoints of {job} ({status}) if data, code and settings are still the same"


def _section(execution_input: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of an input, which may be anything at all."""
    section = execution_input.get(name) if isinstance(execution_input, dict) else None
    return section if isinstance(section, dict) else {}
