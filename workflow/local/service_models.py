"""The data that botocore and moto read from disk: each of it once for the whole server, and none that nothing needs.

Every boto3 session reads AWS's endpoints and service models anew, megabytes of JSON, and the server makes one for each
role. moto reads, when it is imported, in which zone each type of EC2 instance is offered; there are none here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session
import moto.utilities.utils

from workflow.local.authorization import replace

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = ("moto.utilities.utils.load_resource",)

_NOT_NEEDED = "ec2/resources/instance_type"

_original_create_loader = botocore.session.create_loader
_original_load_resource = moto.utilities.utils.load_resource


def install(engine: Engine) -> None:  # noqa: ARG001
    """Let all sessions share one loader; comes before whatever imports moto's EC2."""
    replace(botocore.session, "create_loader", cache(_original_create_loader))
    replace(moto.utilities.utils, "load_resource", _load_resource)


def _load_resource(filename: str, *arguments: Any, **named: Any) -> Any:
    return {} if filename.startswith(_NOT_NEEDED) else _original_load_resource(filename, *arguments, **named)
