"""moto's interpreter, without reading the same definition again for each test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """Parse a definition once: half of what a short execution costs. Nothing of an execution is kept in the result."""
    with pytest.MonkeyPatch.context() as patch:
        parse = lru_cache(maxsize=16)(AmazonStateLanguageParser.parse)
        patch.setattr(AmazonStateLanguageParser, "parse", staticmethod(parse))
        yield
