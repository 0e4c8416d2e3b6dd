"""The pages of docs/reference that are generated say what the code says now."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow.reference import PAGES

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "write it anew: python -m workflow.reference"
