"""CloudFormation in the local cloud: moto's engine, with the resource types of stack.yaml behind it.

moto parses the template, resolves Ref, GetAtt, Sub and conditions, and keeps the stack. What it lacks is added here:
the resource types (the modules named ..._resources.py), an event per resource, a failed deployment that ends in a
status instead of an HTTP 500. What an update changes, and in which order, is stack_updates.py's business.

A type that is neither ours nor moto's is created as an empty stand-in and listed by `stand_ins`.
"""

from __future__ import annotations

import json
import logging
import pickle
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import boto3
import yaml
from botocore.config import Config
from moto.cloudformation import parsing, urls
from moto.cloudformation.models import ChangeSet, Event, Stack
from moto.cloudformation.utils import yaml_tag_constructor
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from workflow.local import (
    change_sets,
    compute_resources,
    event_resources,
    function_versions,
    in_process,
    machine_versions,
    network_resources,
    operations_resources,
    resources,
    service_models,
    stack_updates,
)
from workflow.local.resources import Cloud, Resource, ResourceType, Wanted

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    *change_sets.HOOKS,
    *function_versions.HOOKS,
    *stack_updates.HOOKS,
    "moto.cloudformation.models.ChangeSet._parse_template",
    "moto.cloudformation.models.Event",
    "moto.cloudformation.models.Stack._add_stack_event",
    "moto.cloudformation.models.Stack.create_resources",
    "moto.cloudformation.models.Stack.delete",
    "moto.cloudformation.models.Stack.parse_template",
    "moto.cloudformation.models.Stack.stack_resources",
    "moto.cloudformation.models.Stack.update",
    "moto.cloudformation.parsing.get_model_map",
    "moto.cloudformation.parsing.resource_class_from_type",
    "moto.cloudformation.parsing.resource_name_property_from_type",
    "moto.cloudformation.urls.url_paths",
    "moto.cloudformation.utils.yaml_tag_constructor",
    "moto.s3.models.FakeBucket.get_permission",
    "moto.sagemaker.models.sagemaker_backends",
)

RESOURCE_TYPES: Mapping[str, str] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": "validated",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "validated",
    "AWS::Budgets::Budget": "validated",
    "AWS::CloudTrail::Trail": "validated",
    "AWS::CloudWatch::Alarm": "executed",
    "AWS::CloudWatch::Dashboard": "validated",
    "AWS::CodeBuild::Project": "validated",
    "AWS::DynamoDB::Table": "executed",
    "AWS::EC2::FlowLog": "validated",
    "AWS::EC2::RouteTable": "validated",
    "AWS::EC2::SecurityGroup": "validated",
    "AWS::EC2::SecurityGroupEgress": "validated",
    "AWS::EC2::SecurityGroupIngress": "validated",
    "AWS::EC2::Subnet": "validated",
    "AWS::EC2::SubnetRouteTableAssociation": "validated",
    "AWS::EC2::VPC": "validated",
    "AWS::EC2::VPCEndpoint": "validated",
    "AWS::ECR::Repository": "executed",
    "AWS::Events::Rule": "executed",
    "AWS::IAM::Policy": "executed",
    "AWS::IAM::Role": "executed",
    "AWS::KMS::Alias": "validated",
    "AWS::KMS::Key": "validated",
    "AWS::Lambda::Alias": "executed",
    "AWS::Lambda::EventInvokeConfig": "executed",
    "AWS::Lambda::Function": "executed",
    "AWS::Lambda::LayerVersion": "executed",
    "AWS::Lambda::Permission": "executed",
    "AWS::Lambda::Url": "validated",
    "AWS::Lambda::Version": "executed",
    "AWS::Logs::LogGroup": "executed",
    "AWS::S3::Bucket": "executed",
    "AWS::S3::BucketPolicy": "executed",
    "AWS::SNS::Subscription": "executed",
    "AWS::SNS::Topic": "executed",
    "AWS::SNS::TopicPolicy": "executed",
    "AWS::SQS::Queue": "executed",
    "AWS::SQS::QueuePolicy": "executed",
    "AWS::SageMaker::ModelPackageGroup": "executed",
    "AWS::Scheduler::Schedule": "executed",
    "AWS::StepFunctions::StateMachine": "executed",
    "AWS::StepFunctions::StateMachineAlias": "executed",
    "AWS::StepFunctions::StateMachineVersion": "executed",
    "Custom::ChampionMarker": "executed",
}
"""What the local cloud does with each type of stack.yaml: `executed`, it works as on AWS; `validated`, it is created
and can be read back, and nothing acts on it (nothing is encrypted on loopback)."""

_IMPLEMENTATIONS: Mapping[str, type[ResourceType]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": operations_resources.ScalableTarget,
    "AWS::ApplicationAutoScaling::ScalingPolicy": operations_resources.ScalingPolicy,
    "AWS::Budgets::Budget": operations_resources.Budget,
    "AWS::CloudTrail::Trail": operations_resources.Trail,
    "AWS::CloudWatch::Alarm": compute_resources.Alarm,
    "AWS::CloudWatch::Dashboard": operations_resources.Dashboard,
    "AWS::CodeBuild::Project": operations_resources.BuildProject,
    "AWS::DynamoDB::Table": resources.Table,
    "AWS::EC2::FlowLog": network_resources.FlowLog,
    "AWS::EC2::RouteTable": network_resources.RouteTable,
    "AWS::EC2::SecurityGroup": network_resources.SecurityGroup,
    "AWS::EC2::SecurityGroupEgress": network_resources.SecurityGroupEgress,
    "AWS::EC2::SecurityGroupIngress": network_resources.SecurityGroupIngress,
    "AWS::EC2::Subnet": network_resources.Subnet,
    "AWS::EC2::SubnetRouteTableAssociation": network_resources.SubnetRouteTableAssociation,
    "AWS::EC2::VPC": network_resources.Vpc,
    "AWS::EC2::VPCEndpoint": network_resources.VpcEndpoint,
    "AWS::ECR::Repository": operations_resources.Repository,
    "AWS::Events::Rule": event_resources.Rule,
    "AWS::IAM::Policy": resources.RolePolicy,
    "AWS::IAM::Role": resources.Role,
    "AWS::KMS::Alias": resources.KeyAlias,
    "AWS::KMS::Key": resources.Key,
    "AWS::Lambda::Alias": compute_resources.FunctionAlias,
    "AWS::Lambda::EventInvokeConfig": compute_resources.EventInvokeConfig,
    "AWS::Lambda::Function": compute_resources.Function,
    "AWS::Lambda::LayerVersion": compute_resources.LayerVersion,
    "AWS::Lambda::Permission": compute_resources.FunctionPermission,
    "AWS::Lambda::Url": compute_resources.FunctionUrl,
    "AWS::Lambda::Version": compute_resources.FunctionVersion,
    "AWS::Logs::LogGroup": resources.LogGroup,
    "AWS::S3::Bucket": resources.Bucket,
    "AWS::S3::BucketPolicy": resources.BucketPolicy,
    "AWS::SNS::Subscription": event_resources.Subscription,
    "AWS::SNS::Topic": resources.Topic,
    "AWS::SNS::TopicPolicy": event_resources.TopicPolicy,
    "AWS::SQS::Queue": event_resources.Queue,
    "AWS::SQS::QueuePolicy": event_resources.QueuePolicy,
    "AWS::SageMaker::ModelPackageGroup": compute_resources.ModelPackageGroup,
    "AWS::Scheduler::Schedule": event_resources.Schedule,
    "AWS::StepFunctions::StateMachine": compute_resources.StateMachine,
    "AWS::StepFunctions::StateMachineAlias": compute_resources.StateMachineAlias,
    "AWS::StepFunctions::StateMachineVersion": compute_resources.StateMachineVersion,
}

_ANSWER_PATH = "{0}/cloudformation_(?P<region>[^/]+)/cfnresponse$"
_READ_TIMEOUT_SECONDS = 930  # a custom resource's Lambda may take 15 minutes

_log = logging.getLogger(__name__)
_current_stack: ContextVar[Stack] = ContextVar("current_stack")
_stand_ins: list[str] = []
_original_update = Stack.update
_original_create_resources = Stack.create_resources
_original_delete = Stack.delete


def install(engine: Engine) -> None:
    """Put the resource types and the rest of this module into moto."""
    answers: dict[str, dict[str, Any]] = {}
    session: Any = boto3.Session()  # Any: its type lists every service by name

    @lru_cache
    def client(service: str) -> Any:
        made = session.client(
            service,
            region_name=engine.region,
            endpoint_url=engine.endpoint_url or None,
            aws_access_key_id=engine.identity.root_access_key_id,
            aws_secret_access_key=engine.identity.root_secret_access_key,
            config=Config(
                retries={"total_max_attempts": 1},
                read_timeout=_READ_TIMEOUT_SECONDS,
                user_agent="cloudformation.amazonaws.com",
            ),
        )
        in_process.connect(made, engine)
        return made

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
        (ChangeSet, "_parse_template", _parse_template),
        (Stack, "parse_template", staticmethod(_parsed)),
        (Stack, "create_resources", _create),
        (Stack, "update", _update),
        (Stack, "delete", _delete),
        (Stack, "stack_resources", property(_stack_resources)),
        (FakeBucket, "get_permission", _no_opinion),
    ):
        setattr(owner, name, replacement)
    urls.url_paths[_ANSWER_PATH] = _answer_route(answers)
    change_sets.install()
    stack_updates.install()
    function_versions.install()
    machine_versions.install()


class _TemplateLoader(getattr(yaml, "CLoader", yaml.Loader)):  # type: ignore[misc]
    """moto reads a template several times for each change, with a parser that takes a second for one of ours."""


_TemplateLoader.add_multi_constructor("", yaml_tag_constructor)


def _parsed(template: str) -> dict[str, Any]:
    """A template in YAML or JSON, as moto wants it: a new one each time, for moto changes what it gets."""
    parsed: dict[str, Any] = pickle.loads(_pickled(template))  # noqa: S301 (our own)
    return parsed


@lru_cache(maxsize=4)
def _pickled(template: str) -> bytes:
    try:
        parsed = yaml.load(template, Loader=_TemplateLoader)  # noqa: S506
    except yaml.MarkedYAMLError:
        parsed = json.loads(template)  # indented with tabs
    return pickle.dumps(parsed)


def _parse_template(change_set: ChangeSet) -> None:
    change_set.template_dict = _parsed(change_set.template)


def stand_ins() -> tuple[str, ...]:
    """The resource types that some stack uses and that exist here in name only."""
    return tuple(_stand_ins)


def _implementation(resource_type: str, cloud: Cloud) -> ResourceType:
    if resource_type.startswith("Custom::") or resource_type == "AWS::CloudFormation::CustomResource":
        return compute_resources.CustomResource(cloud)
    if resource_type in _IMPLEMENTATIONS:
        return _IMPLEMENTATIONS[resource_type](cloud)
    service_models.import_left_out()
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
    """A type that is not in stack.yaml, but in moto; a changed one is replaced."""

    replaces = True

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

    def update(self, resource: Any, wanted: Wanted) -> None: ...

    def delete(self, resource: Any) -> None:
        self._model.delete_from_cloudformation_json(
            resource.physical_resource_id,
            {"Properties": dict(resource.wanted.properties)},
            self.cloud.account_id,
            self.cloud.region,
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
        return self._create(Wanted(name, described["Properties"], place["StackId"], place["LogicalId"], self._type))

    def update_from_cloudformation_json(
        self, original_resource: Any, cloudformation_json: Mapping[str, Any], **_: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        if properties == original_resource.wanted.properties:
            return original_resource
        wanted = Wanted(
            properties.get(self._implementation.name_property, original_resource.wanted.name),
            properties,
            _current_stack.get().stack_id,
            original_resource.logical_resource_id,
            self._type,
        )
        if self._implementation.replaces:
            new = self._create(replace(wanted, name=f"{wanted.logical_id}-{secrets.token_hex(6)}"))
            new.replaced = [*original_resource.replaced, original_resource]
            return new
        self._run("UPDATE", wanted, lambda: self._implementation.update(original_resource, wanted))
        original_resource.wanted = wanted
        return original_resource

    def _create(self, wanted: Wanted) -> Any:
        resource = self._run("CREATE", wanted, lambda: self._implementation.create(wanted))
        resource.wanted = wanted
        resource.replaces = self._implementation.replaces
        resource.replaced = []
        resource.delete = lambda *_: self._delete(resource)
        resource.delete_replaced = lambda keep: self._delete_replaced(resource, keep)
        return resource

    def _delete(self, resource: Any) -> None:
        self._run("DELETE", resource.wanted, lambda: self._implementation.delete(resource))
        resource.is_deleted = True

    def _delete_replaced(self, resource: Any, keep: bool) -> None:
        while resource.replaced:
            if not keep:
                self._delete(resource.replaced[0])
            del resource.replaced[0]

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
                stack_updates.delete(stack.resource_map, kept=("Retain",))
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
    """What was made: moto lists a resource whose condition is false too, and makes those of a deleted stack again."""
    made = stack.resource_map._parsed_resources.values()
    return [one for one in made if hasattr(one, "logical_resource_id") and not getattr(one, "is_deleted", False)]


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


def _no_opinion(*_: Any) -> Any:
    """moto takes any Deny with a condition for a Deny of everything. Here the door evaluates it."""
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
