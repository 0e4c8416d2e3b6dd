"""The README says what is true: its table of limits is the code's, its set-up commands are the Makefile's."""

import re
from pathlib import Path

from workflow.reference import with_limits

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_the_picture_of_the_state_machine() -> None:
    # tests/workflow/pages/test_drawing.py says that the picture is the one of the definition.
    assert '<img src="docs/images/state-machine.svg"' in README.partition("## Run it now")[0]


def test_the_limits_in_the_readme_are_those_of_the_code() -> None:
    assert "<!-- limits -->\n|" in README
    assert with_limits(README) == README, "write it anew: python -m workflow.reference"


def test_exactly_two_make_commands_do_the_set_up() -> None:
    block = re.search(r"## Run it now\n.*?```console\n(.*?)```", README, flags=re.DOTALL)
    assert block
    assert re.findall(r"^make (\S+)", block[1], flags=re.MULTILINE) == ["demo", "test"]


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert re.search(r"^make test$", (ROOT / ".ci/run").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_every_path_that_the_readme_names_exists() -> None:
    named = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
