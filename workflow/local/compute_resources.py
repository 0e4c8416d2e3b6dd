"""The resource types that compute, as AWS API calls: functions, state machines, custom resources, and their like.

See resources.py for what a resource type is.
"""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from moto.sagemaker.models import sagemaker_backends

from workflow.local.operations_resources import lower_first
from workflow.local.resources import Properties, Resource, ResourceType, Wanted

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


class Function(ResourceType):
    """AWS::Lambda::Function with its code in S3."""

    name_property = "FunctionName"

    def create(self, wanted: Wanted) -> Resource:
        name = wanted.name
        request = {**_function_configuration(wanted.properties), "Code": wanted.properties["Code"]}
        function = self.cloud.client("lambda").create_function(**{**request, "FunctionName": name})
        self._reserve(name, wanted.properties)
        return Resource(name, wanted, {"Arn": function["FunctionArn"]})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        client, name = self.cloud.client("lambda"), resource.physical_resource_id
        configuration = _function_configuration(wanted.properties)
        configuration.pop("Tags", None)
        configuration.setdefault("Layers", [])
        client.update_function_configuration(**{**configuration, "FunctionName": name})
        client.update_function_code(FunctionName=name, **wanted.properties["Code"])
        self._reserve(name, wanted.properties)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("lambda").delete_function(FunctionName=resource.physical_resource_id)

    def _reserve(self, name: str, properties: Properties) -> None:
        client = self.cloud.client("lambda")
        if "ReservedConcurrentExecutions" in properties:
            client.put_function_concurrency(
                FunctionName=name, ReservedConcurrentExecutions=int(properties["ReservedConcurrentExecutions"])
            )
        else:
            client.delete_function_concurrency(FunctionName=name)


class FunctionVersion(ResourceType):
    """AWS::Lambda::Version; as on AWS there is no new one while neither code nor configuration changed."""

    replaces = True

    def create(self, wanted: Wanted) -> Resource:
        client, function = self.cloud.client("lambda"), wanted.properties["FunctionName"]
        before = {each["FunctionArn"] for each in client.list_versions_by_function(FunctionName=function)["Versions"]}
        version = client.publish_version(FunctionName=function, Description=wanted.properties.get("Description", ""))
        arn = version["FunctionArn"]
        if arn in before:
            raise NothingNew(
                f"A version for this Lambda function exists ( {version['Version']} ). Modify the function to create "
                "a new version."
            )
        return Resource(arn, wanted, {"Version": version["Version"], "FunctionArn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None: ...

    def delete(self, resource: Resource) -> None:
        client, arn = self.cloud.client("lambda"), resource.physical_resource_id
        client.delete_function(FunctionName=arn.rsplit(":", 1)[0], Qualifier=arn.rsplit(":", 1)[1])


class LayerVersion(ResourceType):
    """AWS::Lambda::LayerVersion with its content in S3; every change makes another version."""

    name_property = "LayerName"
    replaces = True

    def create(self, wanted: Wanted) -> Resource:
        # For its replacement `wanted.name` would be a generated one, but the versions are those of one layer.
        name = wanted.properties.get("LayerName", wanted.name)
        layer = self.cloud.client("lambda").publish_layer_version(**{**wanted.properties, "LayerName": name})
        return Resource(layer["LayerVersionArn"], wanted, {"LayerVersionArn": layer["LayerVersionArn"]})

    def update(self, resource: Resource, wanted: Wanted) -> None: ...

    def delete(self, resource: Resource) -> None:
        name, _, version = resource.physical_resource_id.split(":layer:")[1].rpartition(":")
        self.cloud.client("lambda").delete_layer_version(LayerName=name, VersionNumber=int(version))


class FunctionAlias(ResourceType):
    """AWS::Lambda::Alias; provisioned concurrency is kept as a property only."""

    name_property = "Name"

    def create(self, wanted: Wanted) -> Resource:
        arn = self.cloud.client("lambda").create_alias(**self._request(wanted.properties))["AliasArn"]
        return Resource(arn, wanted, {"AliasArn": arn})

    def update(self, _: Resource, wanted: Wanted) -> None:
        self.cloud.client("lambda").update_alias(**self._request(wanted.properties))

    def delete(self, resource: Resource) -> None:
        properties = resource.wanted.properties
        self.cloud.client("lambda").delete_alias(FunctionName=properties["FunctionName"], Name=properties["Name"])

    @staticmethod
    def _request(properties: Properties) -> dict[str, Any]:
        request = {key: value for key, value in properties.items() if key != "ProvisionedConcurrencyConfig"}
        return {**request, "FunctionVersion": str(properties["FunctionVersion"])}


class FunctionPermission(ResourceType):
    """AWS::Lambda::Permission: a statement of the function's own policy."""

    replaces = True

    def create(self, wanted: Wanted) -> Resource:
        request = {key: value for key, value in wanted.properties.items() if key != "FunctionName"}
        function, qualifier = _function_and_qualifier(wanted.properties["FunctionName"])
        self.cloud.client("lambda").add_permission(
            StatementId=wanted.name, FunctionName=function, **qualifier, **request
        )
        return Resource(wanted.name, wanted, {"Id": wanted.name})

    def update(self, resource: Resource, wanted: Wanted) -> None: ...

    def delete(self, resource: Resource) -> None:
        function, qualifier = _function_and_qualifier(resource.wanted.properties["FunctionName"])
        self.cloud.client("lambda").remove_permission(
            StatementId=resource.physical_resource_id, FunctionName=function, **qualifier
        )


class FunctionUrl(ResourceType):
    """AWS::Lambda::Url; it can be read back, and nobody answers there."""

    def create(self, wanted: Wanted) -> Resource:
        answer = self.cloud.client("lambda").create_function_url_config(**self._request(wanted.properties))
        attributes = {"FunctionArn": wanted.properties["TargetFunctionArn"], "FunctionUrl": answer["FunctionUrl"]}
        return Resource(answer["FunctionArn"], wanted, attributes)

    def update(self, _: Resource, wanted: Wanted) -> None:
        self.cloud.client("lambda").update_function_url_config(**self._request(wanted.properties))

    def delete(self, resource: Resource) -> None:
        request = self._request(resource.wanted.properties)
        self.cloud.client("lambda").delete_function_url_config(FunctionName=request["FunctionName"])

    @staticmethod
    def _request(properties: Properties) -> dict[str, Any]:
        """moto knows one URL for each function, whatever the qualifier."""
        request = {key: properties[key] for key in ("AuthType", "Cors", "InvokeMode") if key in properties}
        return {**request, "FunctionName": _function_and_qualifier(properties["TargetFunctionArn"])[0]}


class EventInvokeConfig(ResourceType):
    """AWS::Lambda::EventInvokeConfig."""

    def create(self, wanted: Wanted) -> Resource:
        request = {key: value for key, value in wanted.properties.items() if key != "Qualifier"}
        self.cloud.client("lambda").put_function_event_invoke_config(**request)
        return Resource(wanted.name, wanted)

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.delete(resource)
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("lambda").delete_function_event_invoke_config(
            FunctionName=resource.wanted.properties["FunctionName"]
        )


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
            name=name, type=properties.get("StateMachineType", "STANDARD"), **self._settings(properties)
        )["stateMachineArn"]
        return Resource(arn, wanted, self._attributes(arn, name))

    def update(self, resource: Resource, wanted: Wanted) -> None:
        arn = resource.physical_resource_id
        self.cloud.client("stepfunctions").update_state_machine(
            stateMachineArn=arn, **self._settings(wanted.properties)
        )
        resource.attributes = self._attributes(arn, wanted.name)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("stepfunctions").delete_state_machine(stateMachineArn=resource.physical_resource_id)

    def _settings(self, properties: Properties) -> dict[str, Any]:
        settings: dict[str, Any] = {"definition": self._definition(properties), "roleArn": properties["RoleArn"]}
        if "LoggingConfiguration" in properties:
            settings["loggingConfiguration"] = lower_first(properties["LoggingConfiguration"])
        if "TracingConfiguration" in properties:
            settings["tracingConfiguration"] = lower_first(properties["TracingConfiguration"])
        return settings

    @staticmethod
    def _attributes(arn: str, name: str) -> dict[str, str]:
        """A change makes a new revision."""
        return {"Arn": arn, "Name": name, "StateMachineRevisionId": str(uuid.uuid4())}

    def _definition(self, properties: Properties) -> str:
        location = properties["DefinitionS3Location"]
        s3_object = self.cloud.client("s3").get_object(Bucket=location["Bucket"], Key=location["Key"])
        return substitute(s3_object["Body"].read().decode(), properties.get("DefinitionSubstitutions", {}))


class StateMachineVersion(ResourceType):
    """AWS::StepFunctions::StateMachineVersion."""

    replaces = True

    def create(self, wanted: Wanted) -> Resource:
        client, machine = self.cloud.client("stepfunctions"), wanted.properties["StateMachineArn"]
        known = client.list_state_machine_versions(stateMachineArn=machine)["stateMachineVersions"]
        arn = client.publish_state_machine_version(
            stateMachineArn=machine, description=wanted.properties.get("Description", "")
        )["stateMachineVersionArn"]
        if arn in {version["stateMachineVersionArn"] for version in known}:
            raise NothingNew(
                f"{arn} is a version of the same revision. Modify the state machine to create a new version."
            )
        return Resource(arn, wanted, {"Arn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None: ...

    def delete(self, resource: Resource) -> None:
        self.cloud.client("stepfunctions").delete_state_machine_version(
            stateMachineVersionArn=resource.physical_resource_id
        )


class StateMachineAlias(ResourceType):
    """AWS::StepFunctions::StateMachineAlias; a deployment preference changes everything at once here."""

    name_property = "Name"

    def create(self, wanted: Wanted) -> Resource:
        request = {"name": wanted.name, "routingConfiguration": self._routing(wanted.properties)}
        if "Description" in wanted.properties:
            request["description"] = wanted.properties["Description"]
        arn = self.cloud.client("stepfunctions").create_state_machine_alias(**request)["stateMachineAliasArn"]
        return Resource(arn, wanted, {"Arn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.cloud.client("stepfunctions").update_state_machine_alias(
            stateMachineAliasArn=resource.physical_resource_id,
            description=wanted.properties.get("Description", ""),
            routingConfiguration=self._routing(wanted.properties),
        )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("stepfunctions").delete_state_machine_alias(
            stateMachineAliasArn=resource.physical_resource_id
        )

    @staticmethod
    def _routing(properties: Properties) -> list[dict[str, Any]]:
        if "DeploymentPreference" in properties:
            return [
                {"stateMachineVersionArn": properties["DeploymentPreference"]["StateMachineVersionArn"], "weight": 100}
            ]
        return [
            {"stateMachineVersionArn": route["StateMachineVersionArn"], "weight": int(route["Weight"])}
            for route in properties["RoutingConfiguration"]
        ]


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
        returned = response["Payload"].read().decode(errors="replace")[:1000]
        answer = self.cloud.take_answer(request_id)
        if answer is None:
            raise CustomResourceFailed(f"The Lambda {function} ended without an answer to CloudFormation: {returned}")
        if answer.get("Status") != "SUCCESS":
            raise CustomResourceFailed(f"{function} answered: {answer.get('Reason') or 'FAILED, without a reason'}")
        return answer


class NothingNew(Exception):
    """A new version is wanted of something that did not change; CloudFormation fails then, too."""


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


def _function_configuration(properties: Properties) -> dict[str, Any]:
    """The properties that CreateFunction and UpdateFunctionConfiguration take; tags are a mapping there."""
    left_out = ("Code", "FunctionName", "ReservedConcurrentExecutions")
    configuration = {key: value for key, value in properties.items() if key not in left_out}
    configuration |= {key: int(configuration[key]) for key in ("Timeout", "MemorySize") if key in configuration}
    if "Tags" in configuration:
        configuration["Tags"] = {tag["Key"]: tag["Value"] for tag in configuration["Tags"]}
    return configuration


def _function_and_qualifier(named: str) -> tuple[str, dict[str, str]]:
    """A function by name or ARN, and its qualifier for a request when the ARN has one."""
    parts = named.split(":")
    if len(parts) == 8:
        return ":".join(parts[:7]), {"Qualifier": parts[7]}
    return named, {}


def _text(value: Any) -> Any:
    """CloudFormation hands every scalar to a custom resource as a string."""
    if isinstance(value, Mapping):
        return {key: _text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_text(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)
