"""CloudFormation in the local cloud: moto's engine, with the resource types of stack.yaml behind it.

moto parses the template, orders the resources, resolves Ref, GetAtt, Sub and conditions, and keeps the stack. What it
lacks is added here: the resource types (resources.py, compute_resources.py), an event per resource, a failed deployment
that ends in a status instead of an HTTP 500, changes that reach a resource only through Fn::Sub, RetainExceptOnCreate.

A type that is neither ours nor moto's is created as an empty stand-in and listed by `stand_ins`.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from moto.cloudformation import parsing, urls
from moto.cloudformation.models import Event, Stack
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from workflow.local import compute_resources, resources
from workflow.local.resources import Cloud, Resource, ResourceType, Wanted

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.cloudformation.models.Event",
    "moto.cloudformation.models.Stack._add_stack_event",
    "moto.cloudformation.models.Stack.create_resources",
    "moto.cloudformation.models.Stack.delete",
    "moto.cloudformation.models.Stack.stack_resources",
    "moto.cloudformation.models.Stack.update",
    "moto.cloudformation.parsing.ResourceMap.delete",
    "moto.cloudformation.parsing.get_model_map",
    "moto.cloudformation.parsing.get_references_from_template",
    "moto.cloudformation.parsing.resource_class_from_type",
    "moto.cloudformation.parsing.resource_name_property_from_type",
    "moto.cloudformation.urls.url_paths",
    "moto.s3.models.FakeBucket.get_permission",
    "moto.sagemaker.models.sagemaker_backends",
)

RESOURCE_TYPES: Mapping[str, str] = {
    "AWS::CloudWatch::Alarm": "executed",
    "AWS::DynamoDB::Table": "executed",
    "AWS::IAM::Policy": "executed",
    "AWS::IAM::Role": "executed",
    "AWS::KMS::Key": "validated",
    "AWS::Lambda::Function": "executed",
    "AWS::Logs::LogGroup": "executed",
    "AWS::S3::Bucket": "executed",
    "AWS::S3::BucketPolicy": "validated",
    "AWS::SNS::Topic": "executed",
    "AWS::SageMaker::ModelPackageGroup": "executed",
    "AWS::StepFunctions::StateMachine": "executed",
    "Custom::ChampionMarker": "executed",
}
"""What the local cloud does with each type of stack.yaml: `executed`, it works as on AWS; `validated`, it is created
and can be read back, and nothing acts on it (nothing is encrypted on loopback, and identity policies alone decide)."""

_IMPLEMENTATIONS: Mapping[str, type[ResourceType]] = {
    "AWS::CloudWatch::Alarm": compute_resources.Alarm,
    "AWS::DynamoDB::Table": resources.Table,
    "AWS::IAM::Policy": resources.RolePolicy,
    "AWS::IAM::Role": resources.Role,
    "AWS::KMS::Key": resources.Key,
    "AWS::Lambda::Function": compute_resources.Function,
    "AWS::Logs::LogGroup": resources.LogGroup,
    "AWS::S3::Bucket": resources.Bucket,
    "AWS::S3::BucketPolicy": resources.BucketPolicy,
    "AWS::SNS::Topic": resources.Topic,
    "AWS::SageMaker::ModelPackageGroup": compute_resources.ModelPackageGroup,
    "AWS::StepFunctions::StateMachine": compute_resources.StateMachine,
}

_ANSWER_PATH = "{0}/cloudformation_(?P<region>[^/]+)/cfnresponse$"
_SUB_REFERENCE = re.compile(r"\$\{([^!.}]+)[.}]")
_READ_TIMEOUT_SECONDS = 930  # a custom resource's Lambda may take 15 minutes

_log = logging.getLogger(__name__)
_current_stack: ContextVar[Stack] = ContextVar("current_stack")
_stand_ins: list[str] = []
_original_update = Stack.update
_original_create_resources = Stack.create_resources
_original_delete = Stack.delete
_original_delete_resources = parsing.ResourceMap.delete
_original_references = parsing.get_references_from_template


def install(engine: Engine) -> None:
    """Put the resource types and the rest of this module into moto."""
    answers: dict[str, dict[str, Any]] = {}
    session: Any = boto3.Session()  # Any: its type lists every service by name

    @lru_cache
    def client(service: str) -> Any:
        return session.client(
            service,
            region_name=engine.region,
            endpoint_url=engine.endpoint_url or None,
            aws_access_key_id=engine.identity.root_access_key_id,
            aws_secret_access_key=engine.identity.root_secret_access_key,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=_READ_TIMEOUT_SECONDS),
        )

    cloud = Cloud(
        client=client,
        account_id=engine.account_id,
        region=engine.region,
        answer_url=lambda request: (
            f"{engine.endpoint_url}/cloudformation_{engine.region}/cfnresponse?request={request}"
        ),
        take_answer=lambda request: answers.pop(request, None),
    )

    @lru_cache
    def resource_class(resource_type: str) -> _Adapter:
        return _Adapter(resource_type, _implementation(resource_type, cloud))

    def name_property(resource_type: str) -> str | None:
        return resource_class(resource_type).cloudformation_name_type() or None

    for owner, name, replacement in (
        (parsing, "resource_class_from_type", resource_class),
        (parsing, "resource_name_property_from_type", name_property),
        (parsing, "get_references_from_template", _references),
        (parsing.ResourceMap, "delete", _delete_resources),
        (Stack, "create_resources", _create),
        (Stack, "update", _update),
        (Stack, "delete", _delete),
        (Stack, "stack_resources", property(_stack_resources)),
        (FakeBucket, "get_permission", _no_opinion),
    ):
        setattr(owner, name, replacement)
    urls.url_paths[_ANSWER_PATH] = _answer_route(answers)


def stand_ins() -> tuple[str, ...]:
    """The resource types that some stack uses and that exist here in name only."""
    return tuple(_stand_ins)


def _implementation(resource_type: str, cloud: Cloud) -> ResourceType:
    if resource_type.startswith("Custom::") or resource_type == "AWS::CloudFormation::CustomResource":
        return compute_resources.CustomResource(cloud)
    if resource_type in _IMPLEMENTATIONS:
        return _IMPLEMENTATIONS[resource_type](cloud)
    if resource_type in parsing.get_model_map():
        return _MotoType(cloud, parsing.get_model_map()[resource_type])
    _log.warning("%s exists in the local cloud in name only", resource_type)
    _stand_ins.append(resource_type)
    return _StandIn(cloud)


class _StandIn(ResourceType):
    """A type that nobody implements."""

    def create(self, wanted: Wanted) -> Resource:
        return Resource(wanted.name, wanted, {"Arn": f"arn:aws:stand-in:::{wanted.name}"})

    def update(self, resource: Resource, wanted: Wanted) -> None: ...

    def delete(self, resource: Resource) -> None: ...


class _MotoType(ResourceType):
    """A type that is not in stack.yaml, but in moto."""

    def __init__(self, cloud: Cloud, model: Any) -> None:
        super().__init__(cloud)
        self._model = model
        self.name_property = model.cloudformation_name_type()  # type: ignore[misc]

    def create(self, wanted: Wanted) -> Any:
        described = {"Type": wanted.resource_type, "Properties": dict(wanted.properties)}
        place = {"LogicalId": wanted.logical_id, "StackId": wanted.stack_id, "ResourceType": wanted.resource_type}
        return self._model.create_from_cloudformation_json(
            wanted.name, described, self.cloud.account_id, self.cloud.region, **place
        )

    def update(self, resource: Any, wanted: Wanted) -> None:
        raise NotImplementedError(f"the local cloud cannot change a {wanted.resource_type} in place")

    def delete(self, resource: Any) -> None:
        self._model.delete_from_cloudformation_json(
            resource.physical_resource_id, {"Properties": {}}, self.cloud.account_id, self.cloud.region
        )


class _Adapter:
    """A `ResourceType` in the place of one of moto's model classes; adds the stack's events."""

    def __init__(self, resource_type: str, implementation: ResourceType) -> None:
        self._type = resource_type
        self._implementation = implementation

    def cloudformation_name_type(self) -> str:
        return self._implementation.name_property

    def has_cfn_attr(self, _: str) -> bool:
        return True

    def create_from_cloudformation_json(self, name: str, described: Mapping[str, Any], *_: str, **place: str) -> Any:
        wanted = Wanted(name, described["Properties"], place["StackId"], place["LogicalId"], self._type)
        resource = self._run("CREATE", wanted, lambda: self._implementation.create(wanted))
        resource.wanted = wanted
        resource.delete = lambda *_: self._delete(resource)
        return resource

    def update_from_cloudformation_json(
        self, original_resource: Any, cloudformation_json: Mapping[str, Any], **_: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        wanted = Wanted(
            properties.get(self._implementation.name_property, original_resource.wanted.name),
            properties,
            _current_stack.get().stack_id,
            original_resource.logical_resource_id,
            self._type,
        )
        self._run("UPDATE", wanted, lambda: self._implementation.update(original_resource, wanted))
        original_resource.wanted = wanted
        return original_resource

    def _delete(self, resource: Any) -> None:
        self._run("DELETE", resource.wanted, lambda: self._implementation.delete(resource))
        resource.is_deleted = True

    def _run(self, verb: str, wanted: Wanted, work: Callable[[], Any]) -> Any:
        try:
            result = work()
        except Exception as error:
            _add_event(wanted, f"{verb}_FAILED", str(error) or type(error).__name__)
            raise
        _add_event(wanted, f"{verb}_COMPLETE")
        return result


def _add_event(wanted: Wanted, status: str, reason: str | None = None) -> None:
    stack = _current_stack.get()
    event = Event(
        stack_id=stack.stack_id,
        stack_name=stack.name,
        logical_resource_id=wanted.logical_id,
        physical_resource_id="",
        resource_type=wanted.resource_type,
        resource_status=status,
        resource_status_reason=reason,
        resource_properties=None,
    )
    stack.events.append(event)


def _create(stack: Stack) -> None:
    """Create a stack's resources; after a failure remove what was made, as CloudFormation does."""
    with _working_on(stack):
        try:
            _original_create_resources(stack)
        except Exception as error:
            _log.info("stack %s was not created", stack.name, exc_info=True)
            stack._add_stack_event("ROLLBACK_IN_PROGRESS", resource_status_reason=str(error))
            try:
                _original_delete_resources(stack.resource_map)
            except Exception as second:
                _end(stack, "ROLLBACK_FAILED", str(second))
            else:
                _end(stack, "ROLLBACK_COMPLETE", str(error))


def _update(stack: Stack, template: str, *args: Any, **kwargs: Any) -> None:
    """Update a stack; after a failure it stays as far as it got, and the next update goes on from there."""
    resource_map = stack.resource_map
    template_before, resources_before = stack.template, dict(resource_map._resource_json_map)
    parameters_before = resource_map.input_parameters, dict(resource_map.resolved_parameters)
    with _working_on(stack):
        try:
            _original_update(stack, template, *args, **kwargs)
        except Exception as error:
            _log.info("stack %s was not updated", stack.name, exc_info=True)
            stack.template = template_before
            resource_map.input_parameters, resource_map.resolved_parameters = parameters_before
            known = {**resource_map._resource_json_map, **resources_before}
            _forget_deleted(resource_map)
            resource_map._resource_json_map = {
                name: resource for name, resource in known.items() if name in resource_map._parsed_resources
            }
            _end(stack, "UPDATE_FAILED", str(error))
        else:
            _forget_deleted(resource_map)


def _forget_deleted(resource_map: parsing.ResourceMap) -> None:
    """moto remembers deleted resources, and would not make one again that comes back under the same name."""
    for name, resource in list(resource_map._parsed_resources.items()):
        if getattr(resource, "is_deleted", False):
            del resource_map._parsed_resources[name]


def _delete(stack: Stack) -> None:
    with _working_on(stack):
        _original_delete(stack)


def _stack_resources(stack: Stack) -> list[Any]:
    """moto lists a resource whose condition is false too, as one without a name."""
    return [resource for resource in stack.resource_map.values() if resource is not None]


def _delete_resources(resource_map: parsing.ResourceMap) -> None:
    """moto keeps a resource whose policy is Retain; of a stack that was created, RetainExceptOnCreate is the same."""
    resource_map._resource_json_map = {
        name: {**resource, "DeletionPolicy": "Retain"}
        if resource.get("DeletionPolicy") == "RetainExceptOnCreate"
        else resource
        for name, resource in resource_map._resource_json_map.items()
    }
    _original_delete_resources(resource_map)


def _end(stack: Stack, status: str, reason: str) -> None:
    stack._add_stack_event(status, resource_status_reason=reason)
    stack.status = status


@contextmanager
def _working_on(stack: Stack) -> Iterator[None]:
    token = _current_stack.set(stack)
    try:
        yield
    finally:
        _current_stack.reset(token)


def _references(template: Any) -> list[str]:
    """The parameters that a resource uses: moto looks for Ref only, but `${Name}` in an Fn::Sub is one too."""
    found: list[str] = _original_references(template)
    if isinstance(template, Mapping):
        text = template.get("Fn::Sub", "")
        found += _SUB_REFERENCE.findall(text if isinstance(text, str) else text[0])
    return found


def _no_opinion(*_: Any) -> Any:
    """moto takes any Deny with a condition for a Deny of everything. Here identity policies alone decide."""
    return PermissionResult.NEUTRAL


def _answer_route(answers: dict[str, dict[str, Any]]) -> Callable[..., tuple[int, dict[str, str], str]]:
    def route(request: Any, full_url: str, _: Any) -> tuple[int, dict[str, str], str]:
        """Where the Lambda of a custom resource puts its answer; the request's id is secret, like a signature."""
        [request_id] = parse_qs(urlsplit(full_url).query).get("request", [""])
        answer = json.loads(request.data)
        if not secrets.compare_digest(str(answer.get("RequestId")), request_id):
            return 403, {}, ""
        answers[request_id] = answer
        return 200, {}, ""

    return route
