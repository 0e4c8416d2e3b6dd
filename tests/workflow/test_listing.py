"""Who or what started an execution."""

from __future__ import annotations

import getpass

import pytest

from workflow.listing import comment, started_by

_ID = "0f6b1c1e-1111-4222-8333-444455556666"


@pytest.mark.parametrize(
    ("name", "execution_input", "expected"),
    [
        (f"{_ID}_{_ID}", {}, "EventBridge"),
        (_ID, {"Comment": "Insert your JSON here"}, "console"),
        (_ID, {"Comment": comment("kelpie start")}, f"kelpie start by {getpass.getuser()}"),
        (_ID, {}, "API"),
        (_ID, {"Comment": "whatever"}, "API"),
    ],
)
def test_the_name_and_the_comment_tell_what_started_it(
    name: str, execution_input: dict[str, str], expected: str
) -> None:
    assert started_by(name, execution_input) == expected
