"""What an update of a stack changes, and the update itself: in the order of dependencies, replacements included.

moto looks for changed text in a template. A resource also changes when what it refers to was replaced (an alias, when
its version was), or appears and goes with a condition; so every resource is resolved anew here, and changed when its
properties differ from those that it has. New and changed resources come first, what is no longer wanted goes
afterwards, in the reverse order.

Source: CloudFormation user guide, "Update behaviors of stack resources" and "DeletionPolicy", Nov 2026.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from graphlib import TopologicalSorter
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.parsing import ResourceMap

HOOKS: tuple[str, ...] = (
    "moto.cloudformation.parsing.ResourceMap.build_resource_diff",
    "moto.cloudformation.parsing.ResourceMap.delete",
    "moto.cloudformation.parsing.ResourceMap.update",
    "moto.cloudformation.parsing.clean_json",
    "moto.cloudformation.parsing.parse_and_update_resource",
)

Template = Mapping[str, Any]
_SUB_REFERENCE = re.compile(r"\$\{([^!.}]+)[.}]")
_CUSTOM = ("Custom::", "AWS::CloudFormation::CustomResource")
_KEPT = ("Retain", "RetainExceptOnCreate")  # the same thing once the stack was created


def install() -> None:
    """Put this module into moto."""
    for name, replacement in (("build_resource_diff", diff), ("update", update), ("delete", delete)):
        setattr(ResourceMap, name, replacement)


def references(node: Any) -> Iterator[str]:
    """The names that a part of a template refers to: resources, parameters and AWS's own such as AWS::Region."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "Ref":
                yield str(value)
            elif key == "Fn::GetAtt":
                yield value.split(".")[0] if isinstance(value, str) else str(value[0])
            elif key == "Fn::Sub":
                yield from _SUB_REFERENCE.findall(value if isinstance(value, str) else value[0])
                if not isinstance(value, str):
                    yield from references(value[1])
            else:
                yield from references(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from references(item)


def in_order(described: Template) -> list[str]:
    """Logical names, each after those that it depends on. Raises: graphlib.CycleError."""
    graph = {
        name: sorted(other for other in _needed(resource) if other in described and other != name)
        for name, resource in described.items()
    }
    return list(TopologicalSorter(graph).static_order())


def _needed(resource: Template) -> set[str]:
    """What a resource refers to, or says that it depends on."""
    named = resource.get("DependsOn", [])
    return {*references(resource.get("Properties", {})), *([named] if isinstance(named, str) else named)}


def diff(
    resource_map: ResourceMap, other_template: Template, parameters: Mapping[str, Any] | None = None
) -> dict[str, list[str]]:
    """Logical names by what an update would do: "Add", "Modify" (replacements too) and "Remove"."""
    wanted = _parameters_and_conditions(resource_map, other_template, parameters)
    existing = _existing(resource_map)
    view = _View(wanted, existing)
    changes: dict[str, list[str]] = {"Add": [], "Modify": [], "Remove": []}
    described = other_template["Resources"]
    for name in in_order(described):
        if not _is_wanted(wanted, described[name]):
            continue
        if name not in existing:
            changes["Add"].append(name)
            continue
        properties = parsing.clean_json(described[name].get("Properties", {}), view)  # type: ignore[arg-type]
        if properties != existing[name].wanted.properties:
            changes["Modify"].append(name)
            if existing[name].replaces:
                view.replaced.add(name)
    changes["Remove"] = [name for name in existing if name not in described or not _is_wanted(wanted, described[name])]
    return changes


def update(resource_map: ResourceMap, template: Template, parameters: Mapping[str, Any] | None = None) -> None:
    """Bring a stack's resources to a template; stops at the first failure, with what was done until then."""
    described_before, existing = dict(resource_map._resource_json_map), _existing(resource_map)
    resource_map._template = template  # type: ignore[assignment]
    if parameters:
        resource_map.input_parameters = dict(parameters)
    resource_map.resolved_parameters = {}
    resource_map.load_mapping()
    resource_map.load_parameters()
    resource_map.load_conditions()
    described = template["Resources"]
    resource_map._resource_json_map = described
    _make(resource_map, described, existing)
    for resource in reversed(list(_existing(resource_map).values())):
        keep = described.get(resource.logical_resource_id, {}).get("UpdateReplacePolicy") in _KEPT
        resource.delete_replaced(keep)
    for name in reversed(in_order(described_before)):
        if name in existing and not (name in described and _is_wanted(resource_map, described[name])):
            if described_before[name].get("DeletionPolicy") not in _KEPT:
                existing[name].delete(resource_map._account_id, resource_map._region_name)
            resource_map._parsed_resources.pop(name, None)


def custom_first(described: Template) -> list[str]:
    """As `in_order`, with custom resources and what they need before all others: their Lambdas take the longest."""
    needed: set[str] = set()
    more = {name for name, resource in described.items() if resource["Type"].startswith(_CUSTOM)}
    while more:
        needed |= more
        more = {other for name in more for other in _needed(described[name]) if other in described} - needed
    return sorted(in_order(described), key=lambda name: name not in needed)


def _make(resource_map: ResourceMap, described: Template, existing: Mapping[str, Any]) -> None:
    """Create and change what is wanted. What needs no custom resource is made while the Lambda of that one runs."""
    waited_for: dict[str, Future[Any]] = {}
    with ThreadPoolExecutor(thread_name_prefix="custom-resource") as pool:
        for name in custom_first(described):
            if not _is_wanted(resource_map, described[name]):
                continue
            for other in [other for other in waited_for if other in _needed(described[name])]:
                waited_for.pop(other).result()
            if name in existing:
                changed = parsing.parse_and_update_resource(
                    name, described[name], resource_map, resource_map._account_id, resource_map._region_name
                )
                resource_map._parsed_resources[name] = changed
            elif described[name]["Type"].startswith(_CUSTOM):
                waited_for[name] = pool.submit(copy_context().run, _create, resource_map, name)
            else:
                _create(resource_map, name)
        for future in waited_for.values():
            future.result()


def _create(resource_map: ResourceMap, name: str) -> None:
    _ = resource_map[name]  # which creates it


def delete(resource_map: ResourceMap, kept: Collection[str] = _KEPT) -> None:
    """Delete a stack's resources, but those with a DeletionPolicy in `kept`; a failure does not stop the others.

    Raises: the first failure, when all were tried.
    """
    described, failures = resource_map._resource_json_map, []
    for name in reversed(in_order(described)):
        resource = _existing(resource_map).get(name)
        if resource is None or described[name].get("DeletionPolicy") in kept:
            continue
        try:
            resource.delete(resource_map._account_id, resource_map._region_name)
        except Exception as error:
            failures.append(error)
        else:
            resource_map._parsed_resources.pop(name)
    if failures:
        raise failures[0]


class _Later:
    """What does not exist yet, when a change set asks for its name."""

    def __init__(self, name: str) -> None:
        self.physical_resource_id = f"(of {name}, known after its creation)"

    def get_cfn_attribute(self, _: str) -> str:
        return self.physical_resource_id


class _View(Mapping[str, Any]):
    """What `clean_json` needs to resolve properties, without creating anything."""

    def __init__(self, wanted: ResourceMap, existing: Mapping[str, Any]) -> None:
        self._values = wanted._parsed_resources
        self._existing = existing
        self.replaced: set[str] = set()
        self.lazy_condition_map = wanted.lazy_condition_map
        self.cross_stack_resources = wanted.cross_stack_resources

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        return _Later(name) if name in self.replaced or name not in self._existing else self._existing[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._values, **self._existing})

    def __len__(self) -> int:
        return len({**self._values, **self._existing})


def _parameters_and_conditions(
    resource_map: ResourceMap, template: Template, parameters: Mapping[str, Any] | None
) -> ResourceMap:
    wanted = ResourceMap(
        resource_map.stack_id,
        str(resource_map._parsed_resources["AWS::StackName"]),
        dict(resource_map.input_parameters if parameters is None else parameters),
        {},
        resource_map._region_name,
        resource_map._account_id,
        dict(template),
        resource_map.cross_stack_resources,
    )
    wanted.load_mapping()
    wanted.load_parameters()
    wanted.load_conditions()
    return wanted


def _is_wanted(resource_map: ResourceMap, described: Mapping[str, Any]) -> bool:
    condition = described.get("Condition")
    return condition is None or bool(resource_map.lazy_condition_map[condition])


def _existing(resource_map: ResourceMap) -> dict[str, Any]:
    """The resources that were made, by logical name; moto keeps parameters in the same dictionary."""
    return {
        name: resource
        for name, resource in resource_map._parsed_resources.items()
        if hasattr(resource, "logical_resource_id") and not getattr(resource, "is_deleted", False)
    }
