"""The short import of the SDK: the same definition, and none of what rendering does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workflow import sdk_import

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests/contracts/golden/definition.json"

RENDER = """
import json, sys, threading
import boto3, botocore.loaders
from workflow import sdk_import
from workflow.config import Config
before = boto3.Session.client, botocore.loaders.Loader.load_service_model
with sdk_import.only_to_render():
    from workflow import definition
    text = definition.render(Config())
    kind = []
    make = lambda: kind.append(type(boto3.Session(region_name="us-east-1").client("sts")).__name__)
    other = threading.Thread(target=make)
    other.start(); other.join(); make()
left = [name for name in sdk_import.LEFT_OUT if name in sys.modules]
after = boto3.Session.client, botocore.loaders.Loader.load_service_model
finders = [finder for finder in sys.meta_path if isinstance(finder, sdk_import._Finder)]
modules = len(sys.modules)
import numpy
said = {"text": text, "left": left, "kinds": kind, "modules": modules, "restored": before == after and not finders}
print(json.dumps({**said, "numpy": numpy.arange(3).sum().item()}))
"""


@pytest.fixture(scope="module")
def rendering() -> dict[str, Any]:
    """What a process that only renders says of itself."""
    ran = subprocess.run([sys.executable, "-c", RENDER], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(ran.stdout)
    return said


def test_the_definition_is_the_same_byte_by_byte(rendering: dict[str, Any]) -> None:
    assert rendering["text"] == GOLDEN.read_text(encoding="utf-8")


def test_it_imports_half_of_what_the_sdk_would(rendering: dict[str, Any]) -> None:
    assert rendering["modules"] < 1000


def test_nothing_that_was_left_out_stays_behind_and_it_can_be_imported_afterwards(rendering: dict[str, Any]) -> None:
    assert rendering["left"] == []
    assert rendering["numpy"] == 3
    assert rendering["restored"]


def test_other_threads_get_the_clients_that_they_ask_for(rendering: dict[str, Any]) -> None:
    assert rendering["kinds"] == ["STS", "NoClient"]


def test_what_was_left_out_says_so_when_it_is_used() -> None:
    package = sdk_import._Package("pandas")
    assert isinstance(package.DataFrame, type)
    assert package.DataFrame is package.DataFrame
    with pytest.raises(sdk_import.NotImported, match="DataFrame was left out"):
        package.DataFrame([1])
    with pytest.raises(AttributeError):
        _ = package.__file_that_is_no_attribute__


def test_it_leaves_a_process_alone_that_has_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sagemaker", sys)
    finders = list(sys.meta_path)
    with sdk_import.only_to_render():
        assert sys.meta_path == finders
