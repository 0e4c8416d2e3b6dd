"""How the tests are shared out between two processes (`make test`)."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares expensive fixtures together: the executions on one process, every other file whole."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        room = item.path.parent.name
        group = room if room == "integration" else f"{room}/{item.path.name}"
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Say so when the groups are not honoured: everything would still pass, in twice the time."""
    is_grouped = getattr(session.config.option, "loadgroup", False)
    if is_grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist ignores the groups of tests/conftest.py: see the pins in pyproject.toml")
