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
        item.add_marker(pytest.mark.xdist_group(room if room == "integration" else str(item.path)))
