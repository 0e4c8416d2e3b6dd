"""Every name of moto that the local cloud replaces or relies on exists in the pinned version."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from importlib.metadata import version

import pytest

from workflow import local
from workflow.local.server import HOOKING_MODULES

MODULES = sorted(module.name for module in pkgutil.iter_modules(local.__path__))
HOOKS = [
    (module, name)
    for module in MODULES
    if module != "__main__"
    for name in getattr(importlib.import_module(f"workflow.local.{module}"), "HOOKS", ())
]


def resolve(dotted: str) -> object:
    """Import as much of a dotted name as is a module, then go on by attribute."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if inspect.isclass(found) and not hasattr(found, part) and sets_attribute(found, part):
                return None
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def sets_attribute(owner: type, name: str) -> bool:
    """Tell whether the constructor of a class assigns the attribute."""
    return re.search(rf"self\.{name}\b\s*[:=]", inspect.getsource(owner.__init__)) is not None


def test_moto_is_the_version_whose_internals_were_read() -> None:
    assert version("moto") == "5.2.5"


@pytest.mark.parametrize(("module", "name"), HOOKS)
def test_a_hooked_name_exists(module: str, name: str) -> None:
    assert name.startswith("moto.")
    resolve(name)


@pytest.mark.parametrize("name", ["awslambda.models.LambdaFunction.no_such", "s3.models.no_such", "no_such.models.x"])
def test_a_name_that_does_not_exist_would_be_noticed(name: str) -> None:
    with pytest.raises(AttributeError):
        resolve(f"moto.{name}")


@pytest.mark.parametrize("module", HOOKING_MODULES)
def test_a_hooking_module_lists_its_hooks(module: str) -> None:
    hooking = importlib.import_module(f"workflow.local.{module}")
    assert hooking.HOOKS
    assert list(inspect.signature(hooking.install).parameters) == ["engine"]
