"""The generated page of faults must not get stale in silence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from integration.drills import MODES, Machine

from workflow.commands.faults import fault_app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/faults.md").read_text()
MACHINE = Machine(json.loads((ROOT / "tests/contracts/golden/definition.json").read_text()))
ROWS = [line.split(" | ") for line in PAGE.splitlines() if re.match(r"\| \w+ \| ", line)]


@pytest.mark.parametrize("task", MACHINE.tasks)
def test_every_task_is_in_the_table_with_what_came_of_its_failure(task: str) -> None:
    (row,) = [row for row in ROWS if row[0] == f"| {task}" and row[1].startswith(MACHINE.operation(task))
              and "answers" in row[1]]  # fmt: skip
    for mode, outcome in zip(MODES, row[2:4], strict=True):
        if MACHINE.way(task, mode) is None:
            assert outcome == "-"
        else:
            assert outcome.startswith("serves, warning " if MACHINE.goes_on(task) else "all as before")


def test_the_table_has_no_state_that_is_gone() -> None:
    assert {row[0].removeprefix("| ") for row in ROWS if "answers" in row[1]} == set(MACHINE.tasks)


def test_every_command_is_explained() -> None:
    for command in fault_app.registered_commands:
        assert f"| `{command.name}` |" in PAGE
