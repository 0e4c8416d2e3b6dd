"""A host's process ends at once when all is written: nothing is tidied up while others close their connections."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from training_hosts import ROOT

from training import main

PROGRAM = """
import atexit, sys
from training import main
atexit.register(print, "tidied up")
def stopped(reading): print("said without a line's end", end=""); raise SystemExit(143)
main.main = stopped
main.run_and_leave(None)
"""


class Left(Exception):
    """The process would be gone."""


def leave(code: int) -> None:
    raise Left(code)


def ending(how: object) -> Callable[..., object]:
    def run(reading: object) -> object:
        if isinstance(how, BaseException):
            raise how
        return how

    return run


@pytest.mark.parametrize(
    ("how", "code"), [(0, 0), (1, 1), (SystemExit(143), 143), (SystemExit(2), 2), (SystemExit(), 0)]
)
def test_the_exit_code_is_that_of_the_run(how: object, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main.os, "_exit", leave)
    monkeypatch.setattr(main, "main", ending(how))
    with pytest.raises(Left) as left:
        main.run_and_leave(None)
    assert left.value.args == (code,)


@pytest.mark.parametrize("how", [SystemExit("why"), KeyboardInterrupt(), RuntimeError("why")])
def test_what_python_has_to_say_it_says(how: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main.os, "_exit", leave)
    monkeypatch.setattr(main, "main", ending(how))
    with pytest.raises(type(how)):
        main.run_and_leave(None)


def test_everything_is_written_and_nothing_is_tidied_up() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (143, "said without a line's end"), ran.stderr
