"""Values of task states as AWS writes them: parameters by botocore's shapes, responses as plain JSON. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.session import Session


def pascal(name: str) -> str:
    """With a capital first letter."""
    return name[:1].upper() + name[1:]


def renamed(value: Any, shape: Shape | None, rename: Callable[[str], str]) -> Any:
    """A copy of `value` whose structure keys are the shape's members, then passed through `rename`."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        members: dict[str, Shape] = {str(name): member for name, member in shape.members.items()}
        names = {pascal(name): name for name in members}
        found = {}
        for key, item in value.items():
            member = names.get(pascal(str(key)), str(key))
            found[rename(member)] = renamed(item, members.get(member), rename)
        return found
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [renamed(item, shape.member, rename) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, Mapping):
        return {key: renamed(item, shape.value, rename) for key, item in value.items()}
    return value


_SESSION = Session()


def operation(service: str, action: str) -> Any:
    """Botocore's model of an operation named as in ASL ("createModel"). Raises: ValueError if there is none."""
    model = _SESSION.get_service_model(service)
    names = {name.lower(): name for name in model.operation_names}
    if action.lower() not in names:
        raise ValueError(f"The API action {service}:{action} does not exist")
    return model.operation_model(names[action.lower()])


def input_shape(service: str, action: str) -> Any:
    """The shape of an operation's parameters."""
    return operation(service, action).input_shape


def without_metadata(response: Mapping[str, Any]) -> dict[str, Any]:
    """A boto3 response without boto3's own part."""
    return {key: value for key, value in response.items() if key != "ResponseMetadata"}


def plain(value: Any, epoch: bool = True) -> Any:
    """A response as JSON: timestamps as epoch milliseconds (optimised integrations) or as ISO 8601 text."""
    if isinstance(value, Mapping):
        return {key: plain(item, epoch) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, epoch) for item in value]
    if isinstance(value, datetime.datetime):
        instant = value.astimezone(datetime.UTC)
        if epoch:
            return round(instant.timestamp() * 1000)
        return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if hasattr(value, "read"):
        value = value.read()
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
