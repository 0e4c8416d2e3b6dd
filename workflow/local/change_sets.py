"""Change sets in the local cloud: what they would do is read off what the update will do, and executing one does it.

moto keeps change sets, but executes them past the stack (no outputs, no way back after a failure), and does not list
what changes only through a parameter. Here a change set is executed as the stack's own creation or update, which
cloudformation.py has behind it, and a stack keeps none that was executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moto.cloudformation.models import Change, ChangeSet, CloudFormationBackend, Stack
from moto.cloudformation.parsing import ResourceMap

from workflow.local.stack_updates import in_order, references

HOOKS: tuple[str, ...] = (
    "moto.cloudformation.models.ChangeSet.diff",
    "moto.cloudformation.models.CloudFormationBackend.delete_stack",
    "moto.cloudformation.models.CloudFormationBackend.execute_change_set",
    "moto.cloudformation.models.Stack.has_parameters",
    "moto.cloudformation.parsing.ResourceMap.build_resource_diff",
)

_original_delete_stack = CloudFormationBackend.delete_stack


def install() -> None:
    """Put this module into moto."""
    for owner, name, replacement in (
        (ChangeSet, "diff", _diff),
        (CloudFormationBackend, "delete_stack", _delete_stack),
        (CloudFormationBackend, "execute_change_set", _execute),
        (Stack, "has_parameters", _has_parameters),
    ):
        setattr(owner, name, replacement)


def _has_parameters(stack: Stack, others: Mapping[str, Any]) -> bool:
    """Whether these are the stack's parameters: a number that UsePreviousValue kept is no text any more."""
    mine, theirs = ({name: str(value) for name, value in one.items()} for one in (stack.parameters, others))
    return mine == theirs


def _diff(change_set: ChangeSet) -> list[Change]:
    """What an update with this template and these parameters does, resource by resource."""
    resource_map: ResourceMap = change_set.stack.resource_map
    before, after = resource_map._resource_json_map, change_set.template_dict["Resources"]
    values: Mapping[str, Any] = resource_map.resolved_parameters
    changed_parameters = {name for name, value in change_set.parameters.items() if values.get(name) != value}
    changes = []
    for action, names in resource_map.build_resource_diff(change_set.template_dict, change_set.parameters).items():
        for name in names:
            described = after.get(name) or before[name]
            made: Any = resource_map._parsed_resources.get(name)
            change: Any = Change(action, name, described["Type"])
            change.physical_resource_id = getattr(made, "physical_resource_id", None)
            if action == "Modify":
                change.replacement = "True" if getattr(made, "replaces", False) else "False"
                change.details = _details(before.get(name, {}), described, changed_parameters)
            elif action == "Remove":
                kept = before[name].get("DeletionPolicy") in ("Retain", "RetainExceptOnCreate")
                change.policy_action = "Retain" if kept else "Delete"
            changes.append(change)
    return [*changes, *_followers(resource_map, after, {change.logical_resource_id for change in changes})]


def _followers(resource_map: ResourceMap, after: Mapping[str, Any], changed: set[str]) -> list[Change]:
    """Resources that use an attribute of a changed one, such as a revision: only its change shows what becomes of them.

    An ARN is no such attribute: it stays while its resource does. What AWS says of these is Conditional too.
    """
    found: list[Change] = []
    moving = set(changed)
    replaced: set[str] = set()
    for name in in_order(after):
        made: Any = resource_map._parsed_resources.get(name)
        if made is None or name in changed:
            continue
        if moving & set(_attributes_used(after[name].get("Properties", {}), replaced)):
            change: Any = Change("Modify", name, after[name]["Type"])
            change.physical_resource_id = getattr(made, "physical_resource_id", None)
            change.replacement = "Conditional" if getattr(made, "replaces", False) else "False"
            change.details = []
            found.append(change)
            moving.add(name)
            if change.replacement == "Conditional":
                replaced.add(name)
    return found


def _attributes_used(node: Any, replaced: set[str]) -> Iterator[str]:
    """The resources of which a part of a template uses an attribute, or the name if that may become another."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "Fn::GetAtt":
                name, _, attribute = value.partition(".") if isinstance(value, str) else (value[0], ".", value[1])
                if attribute != "Arn" or name in replaced:
                    yield name
            elif key == "Ref" and value in replaced:
                yield value
            else:
                yield from _attributes_used(value, replaced)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _attributes_used(item, replaced)


def _details(before: Mapping[str, Any], after: Mapping[str, Any], changed: set[str]) -> list[dict[str, Any]]:
    """The properties whose text differs, or that use a parameter with another value."""
    old, new = before.get("Properties", {}), after.get("Properties", {})
    return [
        {"Target": {"Attribute": "Properties", "Name": name}, "ChangeSource": "DirectModification"}
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name) or changed & set(references(new.get(name)))
    ]


def _execute(backend: CloudFormationBackend, change_set_name: str, stack_name: str | None = None) -> None:  # noqa: ARG001
    change_set: Any = backend.describe_change_set(change_set_name)
    stack = backend.stacks[change_set.stack_id]
    for other in [key for key, one in backend.change_sets.items() if one.stack_id == stack.stack_id]:
        del backend.change_sets[other]
    if change_set.change_set_type == "UPDATE":
        stack.update(
            change_set.template, change_set.role_arn, parameters=change_set.parameters, tags=change_set.tags or None
        )
        return
    created: Any = Stack(  # type: ignore[abstract]
        stack_id=stack.stack_id,
        name=stack.name,
        template=change_set.template,
        parameters=change_set.parameters,
        account_id=stack.account_id,
        region_name=stack.region_name,
        notification_arns=stack.notification_arns,
        tags=change_set.tags,
        role_arn=change_set.role_arn,
        cross_stack_resources=backend.exports,
    )
    created.events = stack.events
    backend.stacks[stack.stack_id] = created
    created._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
    created.create_resources()


def _delete_stack(backend: CloudFormationBackend, name_or_stack_id: str) -> None:
    """A stack takes its change sets along; moto would keep them."""
    for stack in list(backend.stacks.values()):
        if name_or_stack_id in (stack.name, stack.stack_id):
            for key in [key for key, one in backend.change_sets.items() if one.stack_id == stack.stack_id]:
                del backend.change_sets[key]
    _original_delete_stack(backend, name_or_stack_id)
