"""Makes docs/reference/permissions.md from stack.yaml and the committed record of authorised requests.

python tests/permission_table.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from authorized_requests import Recorded, load
from policy_mutations import Mutation, Outcome, World, foreign_requests, needed_by, outcomes
from real_aws_only import REAL_AWS_ONLY
from stack_policies import Stack

from workflow.local.conditions import as_list, matches

PAGE = Path(__file__).parents[1] / "docs/reference/permissions.md"

INTRODUCTION = """\
# Permissions

Made by `python tests/permission_table.py` from `workflow/stack.yaml` and
`tests/contracts/golden/authorized_requests.json`; do not edit.

The local cloud authorises every request of every role: identity policies, trust policies, and the policies of buckets,
the key, topics, queues and functions, as IAM does within one account. It notes what is asked for. The record was made
by `python -m pytest -m slow tests/integration/test_authorized_requests.py` over these scenarios:

{scenarios}

{requests} different permissions were asked for (what differs from execution to execution replaced by `hash`, `uuid`,
`0`). Of them, and of what else the statements are about, {foreign} foreign requests were made that nobody may: for
another project's resources, another bucket, prefix or Region, other actions of the same services, other values of the
conditions, in plain HTTP, with another encryption, by strangers, other services and another account.

## What each change of a policy would do

Every statement, action and resource was removed, every action widened to `service:*` and every resource to `*`, every
condition removed, every named principal widened to `*`, one at a time.

{counts}

- **needed**: a recorded request is refused. **real AWS only**: none is, for the reasons below.
- **guards**: a foreign request gets through that the policy refuses. **same**: nothing changes for any request known
  here, mostly because another statement, or the resource's only possible form, says the same.

`python -m pytest -m slow tests/integration/test_mutations.py` makes ten of the changes in a running stack, spread over
the principals, and checks that an execution fails for the denial that is predicted here.

## What only real AWS needs

{excuses}

## Who may do what, and who needs it

The states of the state machine that ask for it, or the service or function that the role belongs to; then the number
of scenarios in which it was asked for.

{permissions}

## Every mutation

{mutations}
"""


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    names = list(header)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return "\n".join(lines + [f"| {' | '.join(str(cell).replace('|', '¦') for cell in row)} |" for row in rows])


def page(stack: Stack, recorded: list[Recorded], foreign_count: int, found: list[Outcome]) -> str:
    """The whole page."""
    scenarios = list(dict.fromkeys(name for one in recorded for name in one.scenarios))
    return INTRODUCTION.format(
        scenarios="\n".join(f"- {name}" for name in sorted(scenarios)),
        requests=len(recorded),
        foreign=foreign_count,
        counts=_counts(found),
        excuses=table(
            ("Role", "Statement", "Actions", "Why", "Source"),
            [(one.roles.replace("*Role", "several"), one.sid, ", ".join(one.actions).replace("*", r"\*"), one.why,
              one.source) for one in REAL_AWS_ONLY],
        ),
        permissions=table(
            ("Principal", "Statement", "Action", "Needed by"), _permissions(stack, recorded)
        ),
        mutations=table(
            ("Policy", "Statement", "Change", "Outcome", "Requests"),
            [_mutation_row(one) for one in found],
        ),
    )  # fmt: skip


def _counts(found: list[Outcome]) -> str:
    kinds: Counter[tuple[str, str]] = Counter((_kind(one.mutation), one.verdict) for one in found)
    verdicts = ("needed", "real AWS only", "guards", "same", "unexplained")
    names = sorted({kind for kind, _ in kinds})
    rows = [(name, *(kinds[name, verdict] or "" for verdict in verdicts)) for name in names]
    total = [sum(kinds[name, verdict] for name in names) for verdict in verdicts]
    return table(("Change", *verdicts), [*rows, ("**all**", *total)])


def _kind(mutation: Mutation) -> str:
    words = mutation.change.split()
    return " ".join([words[0], "removed" if words[-1] == "removed" else "widened"])


def _permissions(stack: Stack, recorded: list[Recorded]) -> Iterator[tuple[str, ...]]:
    for policy in stack.policies:
        for number, statement in enumerate(as_list(policy.document["Statement"])):
            sid = str(statement.get("Sid", number))
            if statement["Effect"] == "Deny" or policy.kind in ("trust", "function", "key"):
                continue
            for action in map(str, as_list(statement["Action"])):
                users = [
                    one
                    for one in recorded
                    if matches(action.lower(), one.action.lower())
                    and (policy.kind != "identity" or one.principal == policy.subject)
                    and any(matches(str(resource), one.resource) for resource in as_list(statement["Resource"]))
                ]
                scenarios = {name for one in users for name in one.scenarios}
                excused = any(row.covers(policy.owner, sid, "") and row.names(action) for row in REAL_AWS_ONLY)
                who = ", ".join(needed_by(users)) if users else "real AWS only" if excused else "nobody so far"
                yield policy.owner, sid, action.replace("*", r"\*"), f"{who} ({len(scenarios)})" if users else who


def _mutation_row(one: Outcome) -> tuple[object, ...]:
    mutation = one.mutation
    count = len(one.broken) if mutation.kind == "removal" else len(one.let_in)
    owner = f"{mutation.policy.owner} {mutation.policy.kind}"
    return owner, mutation.sid, mutation.change.replace("*", r"\*"), one.verdict, count or ""


if __name__ == "__main__":
    of_stack, committed = Stack(), load()
    strange = foreign_requests(committed, World.of(of_stack))
    table_of = outcomes(of_stack, committed, strange)
    PAGE.write_text(page(of_stack, committed, len(strange), table_of), encoding="utf-8")
