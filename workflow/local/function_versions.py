"""Numbers of a Lambda function's versions: moto counts those that are there, so that a number would come twice.

Source: Lambda API reference, PublishVersion ("Lambda doesn't publish a version if the function's configuration and code
haven't changed since the last version") and "Manage Lambda function versions" (numbers are never used again), Nov 2026.
"""

from __future__ import annotations

import copy
from typing import Any

from moto.awslambda.models import LambdaFunction, LambdaStorage

from workflow.local.authorization import replace

HOOKS: tuple[str, ...] = (
    "moto.awslambda.models.LambdaFunction.code_or_config_updated",
    "moto.awslambda.models.LambdaFunction.set_version",
    "moto.awslambda.models.LambdaStorage._arns",
    "moto.awslambda.models.LambdaStorage._functions",
    "moto.awslambda.models.LambdaStorage.get_function_by_name_or_arn_forbid_qualifier",
    "moto.awslambda.models.LambdaStorage.publish_version",
)


def install() -> None:
    """Count versions as AWS does."""
    replace(LambdaStorage, "publish_version", _publish)


def _publish(self: Any, name_or_arn: str, description: str = "") -> LambdaFunction:
    function: Any = self.get_function_by_name_or_arn_forbid_qualifier(name_or_arn)
    group = self._functions[function.function_name]
    if group["versions"] and not function.code_or_config_updated:
        latest: LambdaFunction = group["versions"][-1]
        return latest
    group["last_version"] = int(group.get("last_version", 0)) + 1
    version: Any = copy.copy(function)
    version.set_version(group["last_version"])
    if description:
        version.description = description
    function.code_or_config_updated = False
    group["versions"].append(version)
    self._arns[version.function_arn] = version
    published: LambdaFunction = version
    return published
