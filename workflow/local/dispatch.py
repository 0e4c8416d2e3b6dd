"""Who answers a request: moto's dispatcher, without what it looks up and prepares for every request anew.

These are the folders of all services, the methods of the service's class, the list of all backends that are in use, and
what Flask does to help those who debug an application.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from flask import Flask
from moto.core import responses, utils
from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from workflow.local.authorization import replace

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.core.base_backend.BackendDict.__getitem__",
    "moto.core.base_backend.BackendDict._create_account_specific_backend",
    "moto.core.responses.method_names_from_class",
    "moto.moto_server.werkzeug_app.DomainDispatcherApplication.get_backend_for_host",
    "moto.moto_server.werkzeug_app.create_backend_app",
)

_original_backends_of = BackendDict.__getitem__
_original_method_names = utils.method_names_from_class


class Dispatcher(DomainDispatcherApplication):
    """moto's applications behind one address, each made when the first request for its service arrives."""

    def __init__(self) -> None:
        super().__init__(_application)
        self.get_backend_for_host = lru_cache(maxsize=1024)(super().get_backend_for_host)  # type: ignore[method-assign]


def install(engine: Engine) -> None:  # noqa: ARG001
    """Put this module into moto."""
    replace(responses, "method_names_from_class", cache(_original_method_names))
    replace(BackendDict, "__getitem__", _backends_of)


def _application(service: Any) -> Flask:
    """A service's application; a failure of it goes to the server as when it is debugged, which moto always does."""
    application = create_backend_app(service)
    application.config["PROPAGATE_EXCEPTIONS"] = True
    application.debug = False
    return application


def _backends_of(self: BackendDict[Any], account_id: str) -> Any:
    """The backends of an account; moto looks through those of all services whether these are among them."""
    found = self.get(account_id)
    return _original_backends_of(self, account_id) if found is None else found
