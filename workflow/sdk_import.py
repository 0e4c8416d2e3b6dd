"""Importing the SDK for rendering only, in a third of the time: for a process that does nothing else with it.

The SageMaker SDK imports what trains, serves and reads data frames, builds the classes of an API that is not called
here, reads the service model of SageMaker four times, makes clients, and checks an empty config against its schema; the
Step Functions SDK looks at every installed distribution for its own version. A definition needs none of it.
`only_to_render` puts placeholders in the places of these; they stay in the SDK's modules for as long as the process
lives, so the `kelpie` command uses it and nothing else does. That the definition stays the same is tested.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import boto3
import botocore.loaders

LEFT_OUT: Mapping[str, Mapping[str, Any]] = {
    "jsonschema": {"validate": lambda *_: None},
    "numpy": {},
    "pandas": {},
    "pkg_resources": {"require": lambda name: [metadata.distribution(name)]},
    "sagemaker_core": {},
}
"""Packages that the SDK imports at once, with what it calls of them while it is imported and renders."""

SDK = ("sagemaker", "stepfunctions")


class NotImported(RuntimeError):
    """Something was used that rendering does not need."""


class _Class(type):
    """The class of stand-ins for the classes of a package that was left out."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        raise NotImported(f"{cls.__module__}.{cls.__name__} was left out: this process only renders")


class _Package(ModuleType):
    """A package that was left out: whatever is asked of it is a class without instances."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        stand_in = _Class(name, (), {"__module__": self.__name__})
        setattr(self, name, stand_in)
        return stand_in


class _Finder(MetaPathFinder, Loader):
    def __init__(self, thread_id: int) -> None:
        self._thread_id = thread_id

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        is_left_out = name.partition(".")[0] in LEFT_OUT and threading.get_ident() == self._thread_id
        return ModuleSpec(name, self, is_package=True) if is_left_out else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(LEFT_OUT.get(module.__name__, {}))


class NoClient:
    """In the place of boto3's clients and resources: it can be kept, and not used."""

    _client_config = SimpleNamespace(user_agent="", user_agent_extra="")


@contextlib.contextmanager
def only_to_render() -> Iterator[None]:
    """While it lasts, what is left out is not imported by this thread; without effect once the SDK is there.

    Both the import and the rendering belong inside.
    """
    if any(name in sys.modules for name in SDK):
        yield
        return
    there = {name for name in sys.modules if name.partition(".")[0] in LEFT_OUT}
    thread_id = threading.get_ident()
    finder = _Finder(thread_id)
    sys.meta_path.insert(0, finder)

    def instead_of(original: Callable[..., Any], stand_in: Callable[[], Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            return stand_in() if threading.get_ident() == thread_id else original(*arguments, **named)

        return called

    try:
        with contextlib.ExitStack() as patches:
            for owner, name, stand_in in (
                (boto3.Session, "client", NoClient),
                (boto3.Session, "resource", NoClient),
                (botocore.loaders.Loader, "load_service_model", lambda: {"metadata": {}, "shapes": {}}),
            ):
                patches.enter_context(mock.patch.object(owner, name, instead_of(getattr(owner, name), stand_in)))
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in LEFT_OUT and name not in there]:
            del sys.modules[name]
