"""Makes docs/reference/faults.md from the rows that the fault drills left in build/faults.

python -m pytest -m slow tests/integration/test_faults.py && python tests/fault_table.py
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from integration.drills import MODES, Machine

from workflow.commands.faults import fault_app

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/faults.md"

INTRODUCTION = """\
# Faults

Made by `python tests/fault_table.py` from what `python -m pytest -m slow tests/integration/test_faults.py` left; do not
edit. Rows may be of different runs.

## Make something go wrong

These commands work on the local cloud that runs in this folder. What they ask for happens once, unless `--count` says
otherwise; a model misbehaves until `kelpie local fault clear`. `kelpie local fault list` shows what is still to come.

{commands}

- `api-error` takes any code, because AWS sends codes that its own models do not list: SageMaker's `ThrottlingException`
  and `ValidationException`, all of S3's. A state sees a code that is not modelled under the service's generic name.
- `--state SmokeTest` means requests of this state only; without it, the next request for the operation fails, whichever
  state sends it. `--caller kelpie-clean-up` means those of a Lambda function.
- `api-hang` carries the request out and holds back the answer, for real seconds: `TimeoutSeconds` is not scaled either.
- `training-failure` ends a job before it has instances; with `--after-checkpoints 1`, once one checkpoint is in S3.
- `endpoint-failure` ends a creation Failed and takes an update back; nothing is started for it.
- A model misbehaves between the router and its servers; the servers themselves are the shipped ones.

## What came of it

Every row is a real execution in the local cloud. It was checked that the execution ended as the definition's graph
demands; that a failure's cause names the state that failed; that the config that served before serves, or that there
is no endpoint if there was none; that no endpoint, model, endpoint config, running training job, scalable target or
version that is not rejected is left of a failed execution; that the lock is free; and that a message about the
execution was published. What a fault itself prevents is excepted: a lock that cannot be released stays until the next
execution takes it over, and a message that cannot be published is missing.

The states of the way back are broken when CheckData has failed, before anything was made: what CleanUp cannot undo
for good, a person must, and the message says so.

"all as before" is an execution that FAILED and left nothing; "serves" is one that SUCCEEDED and serves its model, with
the warnings in its output that are named. "-": an execution of this kind does not come to the state. Seconds are of
one execution, with waits divided by 300 (by 60 for the slow model).
"""


def table(rows: list[dict[str, Any]], machine: Machine) -> str:
    """The page. `rows` as test_faults.py writes them."""
    dates = sorted({row["date"] for row in rows})
    counts = Counter((row["mode"], row["status"]) for row in rows)
    lines = [
        INTRODUCTION.format(commands="\n".join(_commands())),
        f"{len(rows)} executions, {' to '.join(dict.fromkeys((dates[0], dates[-1])))}: "
        + "; ".join(
            f"{mode}: {counts[mode, 'FAILED']} failed and left all as before, {counts[mode, 'SUCCEEDED']} succeeded"
            for mode in MODES
        )
        + f". The definition has {len(machine.tasks)} Task states.",
        "",
        f"| State | Fault | {' | '.join(mode.capitalize() for mode in MODES)} | Made by |",
        "|---|---|" + "---|" * len(MODES) + "---|",
    ]
    order = {name: number for number, name in enumerate(machine.states)}
    rows = sorted(rows, key=lambda row: (order.get(row["state"], -1), row["fault"]))
    for key in dict.fromkeys((row["state"], row["fault"]) for row in rows):
        same = {row["mode"]: row for row in rows if (row["state"], row["fault"]) == key}
        cells = [_outcome(same.get(mode)) for mode in MODES]
        command = next((row["command"] for row in same.values() if row["command"]), "")
        way = _way(machine, key[0])
        shown = f"`{command.removeprefix('kelpie local fault ')}`" if command else ""
        lines.append(f"| {key[0]} | {key[1]}{way} | {' | '.join(cells)} | {shown} |")
    return "\n".join(lines) + "\n"


def _way(machine: Machine, state: str) -> str:
    """Where the special way begins that leads to a Task, if that is another state."""
    ways = {machine.way(state, mode) for mode in MODES} if state in machine.tasks else set()
    return "".join(f", on the way by {way}" for way in sorted(filter(None, ways - {state})))


def _outcome(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    text = "all as before" if row["status"] == "FAILED" else "serves"
    warnings = f", warning {', '.join(row['warnings'])}" if row["warnings"] else ""
    return f"{text}{warnings} ({row['seconds']:g} s)"


def _commands() -> list[str]:
    lines = ["| `kelpie local fault` | |", "|---|---|"]
    for command in fault_app.registered_commands:
        assert command.callback is not None
        lines.append(f"| `{command.name}` | {str(command.callback.__doc__).splitlines()[0]} |")
    return lines


def main() -> None:
    """Read build/faults and write the page."""
    rows = [json.loads(path.read_text()) for path in sorted((ROOT / "build/faults").glob("*.json"))]
    machine = Machine(json.loads((ROOT / "tests/contracts/golden/definition.json").read_text()))
    PAGE.write_text(table(rows, machine))
    print(f"{PAGE.relative_to(ROOT)}: {len(rows)} executions")


if __name__ == "__main__":
    main()
