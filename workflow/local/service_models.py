"""What botocore and moto read from disk: each of it once for the whole server, and nothing that nothing needs.

Every boto3 session reads AWS's endpoints and service models anew, megabytes of JSON, and the server makes one for each
role. moto reads the same models again beside them, and, when it is imported, in which Region and zone each type of EC2
instance is offered; there are none here. Its CloudFormation imports every service that has resource types, of which no
stack of ours has most: API Gateway, with a library that checks OpenAPI documents, EC2, RDS. It makes an RSA key for
every KMS key, those that nobody can sign with included. Flask compiles for every route how its URL would be written.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import botocore.session
import moto
import moto.utilities.utils
from botocore.loaders import JSONFileLoader, Loader
from moto.core import loaders
from moto.core import utils as core_utils
from moto.kms.utils import generate_private_key
from werkzeug.routing import Rule

from workflow.local.authorization import replace
from workflow.service_models import load_file

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.apigateway.models",
    "moto.cloudformation.parsing",
    "moto.core.loaders.create_loader",
    "moto.core.utils._load_service_model",
    "moto.kms.models.generate_private_key",
    "moto.utilities.utils.load_resource",
)

_LEFT_OUT = (
    "apigateway",
    "autoscaling",
    "batch",
    "datapipeline",
    "ec2",
    "efs",
    "elb",
    "elbv2",
    "emr",
    "iot",
    "rds",
    "redshift",
    "route53",
)
_NOT_NEEDED = "ec2/resources/instance_type"
_ENDPOINT_PREFIX = {"ec2": "ec2"}
"""Asked for when moto is imported; the largest of all service models says no more. Source: botocore 1.44.5."""

_original_create_loader = botocore.session.create_loader
_original_load_resource = moto.utilities.utils.load_resource
_original_compile_builder = Rule._compile_builder
_original_available_regions = botocore.session.Session.get_available_regions


def install(engine: Engine) -> None:  # noqa: ARG001
    """Let all sessions and moto share one loader; comes before whatever imports moto's EC2."""
    for owner, name, replacement in (
        (botocore.session, "create_loader", cache(_original_create_loader)),
        (botocore.session.Session, "get_available_regions", _available_regions),
        (core_utils, "_load_service_model", _load_service_model),
        (moto.utilities.utils, "load_resource", _load_resource),
        (JSONFileLoader, "_load_file", load_file),
        (Rule, "_compile_builder", _compile_builder),
    ):
        replace(owner, name, replacement)
    _import_cloudformation()
    replace(importlib.import_module("moto.kms.models"), "generate_private_key", LaterKey)


class LaterKey:
    """A private key that is made when somebody uses it."""

    def __init__(self, key_spec: str) -> None:
        self._key_spec = key_spec

    @cached_property
    def _key(self) -> Any:
        return generate_private_key(self._key_spec)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)


def _compile_builder(self: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
    """What writes a route's URL, compiled when the first one is written: moto answers, and links to nothing."""
    compiled = cache(lambda: _original_compile_builder(self, append_unknown))
    return lambda *arguments, **named: compiled()(*arguments, **named)


def _load_resource(filename: str, *arguments: Any, **named: Any) -> Any:
    return {} if filename.startswith(_NOT_NEEDED) else _original_load_resource(filename, *arguments, **named)


@cache
def _moto_loader() -> Loader:
    return loaders.create_loader()


def _load_service_model(service_name: str, model_name: str) -> dict[str, Any]:
    """botocore's model itself where moto adds nothing to it."""
    adds = any(Path(moto.__file__).parent.glob(f"{service_name.replace('-', '')}/*/{model_name}.moto-extras.json*"))
    loader: Loader = _moto_loader() if adds else botocore.session.create_loader(None)  # as sessions call it
    model: dict[str, Any] = loader.load_service_model(service_name, model_name)
    return model


def _available_regions(
    self: Any, service_name: str, partition_name: str = "aws", allow_non_regional: bool = False
) -> list[str]:
    prefix = _ENDPOINT_PREFIX.get(service_name)
    if prefix is None:
        regions: list[str] = _original_available_regions(self, service_name, partition_name, allow_non_regional)
        return regions
    resolver = self._get_internal_component("endpoint_resolver")
    return list(resolver.get_available_endpoints(prefix, partition_name, allow_non_regional))


class _LeftOut(ModuleType):
    """Stands for a package of moto, or its models, until somebody asks for one of its backends."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = [str(Path(moto.__file__).parent.joinpath(*name.split(".")[1:]))]  # what else is in it is found

    def __getattr__(self, name: str) -> _LaterBackends:
        if not name.endswith("_backends"):
            raise AttributeError(name)
        return _LaterBackends(self.__name__, name)


class _LaterBackends:
    """A service's backends, imported when somebody asks for the one of an account."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def __getitem__(self, account_id: str) -> Any:
        return getattr(importlib.import_module(self._module), self._name)[account_id]


def _import_cloudformation() -> None:
    """Import moto's CloudFormation without the services that it imports for types that no stack here has."""
    if "moto.cloudformation.parsing" in sys.modules:
        return
    left_out: dict[str, ModuleType] = {}
    for service in _LEFT_OUT:
        package, models = _LeftOut(f"moto.{service}"), _LeftOut(f"moto.{service}.models")
        package.models = models  # type: ignore[attr-defined]
        left_out |= {module.__name__: module for module in (package, models) if module.__name__ not in sys.modules}
    sys.modules.update(left_out)
    try:
        importlib.import_module("moto.cloudformation.parsing")
        importlib.import_module("moto.batch.utils")  # all that moto's Step Functions takes of Batch
    finally:
        for name in left_out:
            del sys.modules[name]


def import_left_out() -> None:
    """Import the services that were left out, for a stack with a type that is none of ours."""
    for service in _LEFT_OUT:
        importlib.import_module(f"moto.{service}.models")
