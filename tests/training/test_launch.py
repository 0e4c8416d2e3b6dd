"""How a training process begins."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest

from training import launch, reading


class Ran(Exception):
    """The run has begun."""


def test_reading_begins_first_and_garbage_is_looked_for_again_in_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []

    def begin(argv: list[str], _environment: object) -> str:
        happened.append(("begin", argv, gc.isenabled()))
        return "begun"

    class Main:
        """Instead of training.main: tells when what it has is imported."""

        @property
        def run_and_leave(self) -> Callable[[object], None]:
            happened.append(("imported", gc.isenabled()))

            def run(begun: object) -> None:
                happened.append((begun, gc.isenabled()))
                raise Ran

            return run

    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "pictures"])
    monkeypatch.setattr(reading, "begin", begin)
    monkeypatch.setitem(sys.modules, "training.main", Main())
    try:
        with pytest.raises(Ran):
            launch.launch()
    finally:
        gc.unfreeze()
    assert happened == [("begin", ["--data", "pictures"], True), ("imported", False), ("begun", True)]
