"""CloudFormation templates as data: parse one, take the part of it that comes first, fill in its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

try:
    from yaml import CSafeLoader as _Loader  # ten times as fast; not in every build of PyYAML
except ImportError:
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

TEMPLATE_FILE = Path(__file__).parents[1] / "stack.yaml"

BODY_LIMIT_BYTES = 51_200
"""Longest TemplateBody of CreateStack. Source: botocore 1.44.5, cloudformation service model."""

URL_LIMIT_BYTES = 1_048_576
"""Longest template behind a TemplateURL. Source: botocore 1.44.5, CloudFormation, CreateChangeSet: 1 MB."""

BOOTSTRAP_RESOURCES = (
    "ArtifactBucket",
    "ArtifactBucketPolicy",
    "LogBucketPolicy",
    "ServingRepository",
    "ImageBuild",
)
"""What the first phase of the first deployment creates, with all that these depend on."""

_SUB_REFERENCE = re.compile(r"\$\{([^!.}]+)")


def parse(template_body: str) -> dict[str, Any]:
    """A YAML template with the short forms (`!Ref`, `!GetAtt`, `!Sub`, ...) written out."""
    loaded = yaml.load(template_body, Loader=_TemplateLoader)  # noqa: S506 (a SafeLoader)
    assert isinstance(loaded, dict)
    return loaded


def bootstrap(template: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a template that creates `BOOTSTRAP_RESOURCES`: these, and whatever they depend on."""
    return part(template, BOOTSTRAP_RESOURCES)


def part(template: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The part of a template that creates these resources and all that they depend on, without any condition."""
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in template["Resources"] and name not in wanted:
            wanted.add(name)
            waiting += _references(template["Resources"][name])
    resources = {name: resource for name, resource in template["Resources"].items() if name in wanted}
    used = set(_references(resources))
    return {
        "AWSTemplateFormatVersion": template["AWSTemplateFormatVersion"],
        "Description": template["Description"],
        "Parameters": {name: value for name, value in template["Parameters"].items() if name in used},
        "Resources": resources,
        "Outputs": {
            name: output for name, output in template["Outputs"].items() if set(_references(output)) <= set(resources)
        },
    }


def parameter_list(template: Mapping[str, Any], values: Mapping[str, str]) -> list[dict[str, str]]:
    """Every parameter of a template, with the given value or the template's default."""
    defaults = {name: str(slot["Default"]) for name, slot in template["Parameters"].items() if "Default" in slot}
    return [{"ParameterKey": name, "ParameterValue": {**defaults, **values}[name]} for name in template["Parameters"]]


class _TemplateLoader(_Loader):
    """A safe loader with CloudFormation's tags; a class of its own, since other libraries change the shared ones."""


def _construct_intrinsic(loader: SafeConstructor, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_TemplateLoader.add_multi_constructor("!", _construct_intrinsic)


def _references(node: Any) -> Iterator[str]:
    """Every name that a part of a template refers to."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0]
            elif key == "Fn::Sub":
                yield from _SUB_REFERENCE.findall(value if isinstance(value, str) else value[0])
            elif key == "DependsOn":
                yield from [value] if isinstance(value, str) else value
            yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)
