"""stack.yaml as tests look at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from workflow.deployment import packaging, template

BODY = template.TEMPLATE_FILE.read_text()
TEMPLATE = template.parse(BODY)
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
LAMBDA_NAMES = ["".join(map(str.capitalize, name.split("_"))) for name in packaging.LAMBDAS]


class Statement(NamedTuple):
    """A statement of a policy, and the resource whose policy it is."""

    owner: str
    content: dict[str, Any]

    @property
    def actions(self) -> set[str]:
        return set(as_list(self.content["Action"]))

    @property
    def resources(self) -> list[Any]:
        return as_list(self.content["Resource"])

    def __str__(self) -> str:
        return f"{self.owner}-{self.content['Sid']}"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def of_type(resource_type: str) -> dict[str, dict[str, Any]]:
    """The properties of every resource of a type, by logical name."""
    return {name: found["Properties"] for name, found in RESOURCES.items() if found["Type"] == resource_type}


def role_statements() -> Iterator[Statement]:
    """Every statement of every role."""
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role["Policies"]:
            yield from (Statement(name, content) for content in policy["PolicyDocument"]["Statement"])
    for name, policy in of_type("AWS::IAM::Policy").items():
        yield from (Statement(name, content) for content in policy["PolicyDocument"]["Statement"])


def resource_policies() -> dict[str, list[Statement]]:
    """The statements of every policy that a resource has itself, by the policy's logical name."""
    found = {
        name: properties["PolicyDocument"]["Statement"]
        for kind in ("S3::BucketPolicy", "SNS::TopicPolicy", "SQS::QueuePolicy", "EC2::VPCEndpoint")
        for name, properties in of_type(f"AWS::{kind}").items()
    }
    found |= {name: key["KeyPolicy"]["Statement"] for name, key in of_type("AWS::KMS::Key").items()}
    return {name: [Statement(name, content) for content in contents] for name, contents in found.items()}


def conditions(statement: Statement) -> dict[str, Any]:
    """The condition keys of a statement with their values."""
    return {key: value for block in statement.content.get("Condition", {}).values() for key, value in block.items()}
