"""Small picture sets."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_pictures import picture_folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 train (3 classes), 6 valid and 12 test pictures."""
    return picture_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def in_process() -> Iterator[None]:
    """For tests that call `main` themselves: what it changes in its process is put back."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_deterministic_debug_mode("default")
