"""The resource types that compute, as AWS API calls: functions, state machines, custom resources, and their like.

See resources.py for what a resource type is.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from moto.sagemaker.models import sagemaker_backends

from workflow.local.resources import Properties, Resource, ResourceType, Wanted

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


class Function(ResourceType):
    """AWS::Lambda::Function with its code in S3."""

    name_property = "FunctionName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        function = self.cloud.client("lambda").create_function(**{**properties, "FunctionName": name})
        return Resource(name, wanted, {"Arn": function["FunctionArn"]})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        client, name = self.cloud.client("lambda"), resource.physical_resource_id
        configuration = {key: value for key, value in wanted.properties.items() if key not in ("Code", "FunctionName")}
        client.update_function_configuration(FunctionName=name, **configuration)
        client.update_function_code(FunctionName=name, **wanted.properties["Code"])

    def delete(self, resource: Resource) -> None:
        self.cloud.client("lambda").delete_function(FunctionName=resource.physical_resource_id)


class Alarm(ResourceType):
    """AWS::CloudWatch::Alarm: its properties are PutMetricAlarm's parameters."""

    name_property = "AlarmName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        cloudwatch = self.cloud.client("cloudwatch")
        cloudwatch.put_metric_alarm(**{**properties, "AlarmName": name})
        [alarm] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
        return Resource(name, wanted, {"Arn": alarm["AlarmArn"]})

    def update(self, _: Resource, wanted: Wanted) -> None:
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("cloudwatch").delete_alarms(AlarmNames=[resource.physical_resource_id])


class ModelPackageGroup(ResourceType):
    """AWS::SageMaker::ModelPackageGroup."""

    name_property = "ModelPackageGroupName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        arn = self.cloud.client("sagemaker").create_model_package_group(
            ModelPackageGroupName=name,
            ModelPackageGroupDescription=properties.get("ModelPackageGroupDescription", ""),
        )["ModelPackageGroupArn"]
        return Resource(arn, wanted, {"ModelPackageGroupArn": arn})

    def update(self, _: Resource, __: Wanted) -> None:
        """Only tags can change, and the stack sets none."""

    def delete(self, resource: Resource) -> None:
        # moto's API cannot delete a group.
        groups = sagemaker_backends[self.cloud.account_id][self.cloud.region].model_package_groups
        groups.pop(resource.physical_resource_id.rsplit("/", 1)[-1], None)


class StateMachine(ResourceType):
    """AWS::StepFunctions::StateMachine with its definition in S3 and substitutions."""

    name_property = "StateMachineName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        arn = self.cloud.client("stepfunctions").create_state_machine(
            name=name,
            definition=self._definition(properties),
            roleArn=properties["RoleArn"],
            type=properties.get("StateMachineType", "STANDARD"),
        )["stateMachineArn"]
        return Resource(arn, wanted, {"Arn": arn, "Name": name})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.cloud.client("stepfunctions").update_state_machine(
            stateMachineArn=resource.physical_resource_id,
            definition=self._definition(wanted.properties),
            roleArn=wanted.properties["RoleArn"],
        )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("stepfunctions").delete_state_machine(stateMachineArn=resource.physical_resource_id)

    def _definition(self, properties: Properties) -> str:
        location = properties["DefinitionS3Location"]
        s3_object = self.cloud.client("s3").get_object(Bucket=location["Bucket"], Key=location["Key"])
        return substitute(s3_object["Body"].read().decode(), properties.get("DefinitionSubstitutions", {}))


class CustomResource(ResourceType):
    """A custom resource, backed by a Lambda that is really invoked and answers at a URL, as on AWS."""

    def create(self, wanted: Wanted) -> Resource:
        answer = self._request("Create", wanted)
        return Resource(answer["PhysicalResourceId"], wanted, answer.get("Data") or {})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        old = {
            "PhysicalResourceId": resource.physical_resource_id,
            "OldResourceProperties": _text(resource.wanted.properties),
        }
        answer = self._request("Update", wanted, **old)
        resource.physical_resource_id = answer["PhysicalResourceId"]
        resource.attributes = answer.get("Data") or {}

    def delete(self, resource: Resource) -> None:
        self._request("Delete", resource.wanted, PhysicalResourceId=resource.physical_resource_id)

    def _request(self, kind: str, wanted: Wanted, **more: Any) -> dict[str, Any]:
        request_id = secrets.token_hex(16)
        function = wanted.properties["ServiceToken"]
        event = {
            "RequestType": kind,
            "ServiceToken": function,
            "ResponseURL": self.cloud.answer_url(request_id),
            "StackId": wanted.stack_id,
            "RequestId": request_id,
            "LogicalResourceId": wanted.logical_id,
            "ResourceType": wanted.resource_type,
            "ResourceProperties": _text(wanted.properties),
            **more,
        }
        response = self.cloud.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        answer = self.cloud.take_answer(request_id)
        if answer is None:
            returned = response["Payload"].read().decode(errors="replace")[:1000]
            raise CustomResourceFailed(f"The Lambda {function} ended without an answer to CloudFormation: {returned}")
        if answer.get("Status") != "SUCCESS":
            raise CustomResourceFailed(f"{function} answered: {answer.get('Reason') or 'FAILED, without a reason'}")
        return answer


class CustomResourceFailed(Exception):
    """The Lambda behind a custom resource failed, or said FAILED."""


def substitute(definition: str, substitutions: Mapping[str, Any]) -> str:
    """A state machine's definition with each `${Name}` replaced.

    Raises:
        ValueError: when a name is used that has no value; CloudFormation would leave it in place, and the execution
            would fail at its first use of it.
    """
    missing = sorted(set(_PLACEHOLDER.findall(definition)) - set(substitutions))
    if missing:
        raise ValueError(f"DefinitionSubstitutions has no value for {', '.join(missing)}")
    return _PLACEHOLDER.sub(lambda match: str(substitutions[match[1]]), definition)


def _text(value: Any) -> Any:
    """CloudFormation hands every scalar to a custom resource as a string."""
    if isinstance(value, Mapping):
        return {key: _text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_text(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)
