"""What nobody could verify about AWS, tried out by the first person with an account, and recorded.

Everything that is made begins with `kelpie-verify-` and is removed again, whatever happens.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from workflow.errors import KelpieError
from workflow.verify_aws.experiments import EXPERIMENTS, Experiment
from workflow.verify_aws.lab import Lab
from workflow.verify_aws.left_overs import PREFIX, left_overs, remove

if TYPE_CHECKING:
    from workflow.account import Account
    from workflow.config import Config

__all__ = ["EXPERIMENTS", "PREFIX", "Experiment", "Result", "clean_up", "left_overs", "record", "to_markdown", "verify"]


@dataclass(frozen=True)
class Result:
    """How an experiment ended.

    Args:
        name: The experiment's.
        question: The experiment's.
        outcome: `answered`, `failed` (no answer: `answer` says why), or `not tried`.
        answer: What was seen, or why not.
        evidence: What AWS said, ready for JSON.
    """

    name: str
    question: str
    outcome: str
    answer: str
    evidence: Any = None


def verify(
    account: Account,
    config: Config,
    experiments: Iterable[Experiment] = EXPERIMENTS,
    *,
    person: bool = False,
    spend: bool = False,
    patience: float = 1.0,
    on_start: Callable[[Experiment], None] = lambda _: None,
) -> list[Result]:
    """Try the experiments one after the other; each removes what it made before the next one begins.

    Args:
        account: Where.
        config: The settings of the project.
        experiments: Which ones.
        person: Somebody can act in the console.
        spend: Those may be tried that may cost more than a few state transitions.
        patience: Multiplies every waiting time.
        on_start: Called before each experiment that is tried.

    An experiment that fails, or whose resources cannot be removed, does not keep the others from being tried: its
    result says so, and `left_overs` names what is still there.
    """
    results = []
    for one in experiments:
        reason = _reason_not_to_try(one, person=person, spend=spend)
        if reason:
            results.append(Result(one.name, one.question, "not tried", reason))
            continue
        assert one.run is not None
        on_start(one)
        try:
            with Lab(account, config.project.name, patience=patience) as lab:
                seen = one.run(lab, config)
            results.append(Result(one.name, one.question, "answered", seen.answer, seen.evidence))
        except (ClientError, BotoCoreError, KelpieError) as error:
            results.append(Result(one.name, one.question, "failed", str(error)))
    return results


def _reason_not_to_try(experiment: Experiment, *, person: bool, spend: bool) -> str:
    if experiment.run is None:
        return f"No program can arrange it. {experiment.how}"
    if experiment.spends and not spend:
        return f"It may cost money ({experiment.cost}): kelpie verify-aws --spend"
    if experiment.needs_person and not person:
        return "It needs a person in the console: kelpie verify-aws --person"
    return ""


def clean_up(account: Account, project: str) -> list[str]:
    """Remove what interrupted runs have left, and name it.

    Raises:
        KelpieError: Something could not be removed.
    """
    return remove(account, project)


def record(account: Account, results: list[Result], endpoint_url: str | None) -> dict[str, Any]:
    """What was seen, where and when, ready for JSON."""
    return {
        "where": "AWS" if endpoint_url is None else f"{endpoint_url}, which is not AWS",
        "account": account.account_id,
        "region": account.region,
        "when": datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        "results": [vars(one) for one in results],
    }


def to_markdown(recorded: dict[str, Any]) -> str:
    """The record for a person."""
    lines = [
        "# What was seen",
        "",
        f"Where: {recorded['where']}, account {recorded['account']}, {recorded['region']}. When: {recorded['when']}.",
        "",
        "| Experiment | Question | Outcome | Answer |",
        "|---|---|---|---|",
    ]
    for one in recorded["results"]:
        cells = (one["name"], one["question"], one["outcome"], one["answer"])
        lines.append(f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"
