"""The policies of stack.yaml with logical names in the place of physical ones, and requests translated to these names.

A resolver for the few intrinsics that policies use, so that policies can be taken apart and evaluated without a stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from workflow.deployment import template

ACCOUNT_ID = "123456789012"
REGION = "us-east-1"

Kind = Literal["identity", "trust", "bucket", "key", "topic", "queue", "function"]

_NAME_PROPERTIES = {
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::StepFunctions::StateMachine": "StateMachineName",
    "AWS::SageMaker::ModelPackageGroup": "ModelPackageGroupName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::CodeBuild::Project": "Name",
    "AWS::Scheduler::Schedule": "Name",
    "AWS::Events::Rule": "Name",
    "AWS::S3::Bucket": "BucketName",
    "AWS::IAM::Role": "RoleName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::CloudTrail::Trail": "TrailName",
}
_ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT_ID}:role/{{name}}",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{{name}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT_ID}:log-group:{{name}}:*",
    "AWS::CloudWatch::Alarm": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT_ID}:alarm:{{name}}",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT_ID}:stateMachine:{{name}}",
    "AWS::SageMaker::ModelPackageGroup": f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}:model-package-group/{{name}}",
    "AWS::SNS::Topic": f"arn:aws:sns:{REGION}:{ACCOUNT_ID}:{{name}}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT_ID}:{{name}}",
    "AWS::KMS::Key": f"arn:aws:kms:{REGION}:{ACCOUNT_ID}:key/{{name}}",
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT_ID}:table/{{name}}",
    "AWS::ECR::Repository": f"arn:aws:ecr:{REGION}:{ACCOUNT_ID}:repository/{{name}}",
    "AWS::CodeBuild::Project": f"arn:aws:codebuild:{REGION}:{ACCOUNT_ID}:project/{{name}}",
    "AWS::Scheduler::Schedule": f"arn:aws:scheduler:{REGION}:{ACCOUNT_ID}:schedule/default/{{name}}",
    "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{{name}}",
    "AWS::CloudTrail::Trail": f"arn:aws:cloudtrail:{REGION}:{ACCOUNT_ID}:trail/{{name}}",
}
_PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "kelpie",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT_ID}:stack/kelpie/id",
}
_SUB = re.compile(r"\$\{([^!}]+)\}")
_NO_VALUE = object()


@dataclass(frozen=True)
class StackPolicy:
    """One policy document of the stack."""

    owner: str
    """Logical name of the role or resource that has it."""
    kind: Kind
    name: str
    document: Mapping[str, Any]
    subject: str
    """The physical name of what has it, as it is in ARNs; of a permission, the function's."""


class Stack:
    """stack.yaml, resolved: every parameter has its default, every optional part is there."""

    def __init__(self, parsed: Mapping[str, Any] | None = None) -> None:
        self.template = parsed or template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))
        self.resources: Mapping[str, Any] = self.template["Resources"]

    def ref(self, name: str) -> str:
        """What Ref gives: a parameter's default, or a name made of the resource's properties or its logical name."""
        if name in _PSEUDO:
            return _PSEUDO[name]
        if name in self.template["Parameters"]:
            return str(self.template["Parameters"][name].get("Default", name))
        resource = self.resources[name]
        if resource["Type"] in ("AWS::SNS::Topic", "AWS::Lambda::Version", "AWS::Lambda::Alias",
                                "AWS::Lambda::LayerVersion",
                                "AWS::StepFunctions::StateMachine", "AWS::StepFunctions::StateMachineVersion",
                                "AWS::StepFunctions::StateMachineAlias"):  # fmt: skip
            return self.arn(name)
        if resource["Type"] == "AWS::SQS::Queue":
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT_ID}/{self.name(name)}"
        return self.name(name)

    def name(self, logical_id: str) -> str:
        """The physical name of a resource: the one its properties give, else its logical name."""
        resource = self.resources[logical_id]
        named = resource.get("Properties", {}).get(_NAME_PROPERTIES.get(resource["Type"], ""))
        return str(self.resolve(named)) if named is not None else logical_id

    def arn(self, logical_id: str) -> str:
        """The ARN of a resource."""
        resource = self.resources[logical_id]
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::Lambda::Version":
                return f"{self.function_arn(properties['FunctionName'])}:1"
            case "AWS::Lambda::LayerVersion":
                return f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:layer:{self.resolve(properties['LayerName'])}:1"
            case "AWS::Lambda::Alias":
                return f"{self.function_arn(properties['FunctionName'])}:{self.resolve(properties['Name'])}"
            case "AWS::StepFunctions::StateMachineVersion":
                return f"{self.resolve(properties['StateMachineArn'])}:1"
            case "AWS::StepFunctions::StateMachineAlias":
                return f"{self.arn('StateMachine')}:{self.resolve(properties.get('Name', 'live'))}"
            case kind:
                return _ARNS[kind].format(name=self.name(logical_id))

    def function_arn(self, named: Any) -> str:
        """The ARN of a function that is named by name or by ARN."""
        text = str(self.resolve(named))
        return text if text.startswith("arn:") else _ARNS["AWS::Lambda::Function"].format(name=text)

    def attribute(self, logical_id: str, attribute: str) -> str:
        """What Fn::GetAtt gives."""
        if attribute.endswith(("Arn", "TopicArn")):
            return self.arn(logical_id)
        if attribute.endswith("Name"):
            return self.name(logical_id)
        return f"{logical_id}.{attribute}"

    def resolve(self, node: Any) -> Any:
        """A part of the template without intrinsics."""
        if isinstance(node, list):
            return [value for item in node if (value := self.resolve(item)) is not _NO_VALUE]
        if not isinstance(node, Mapping):
            return node
        if len(node) == 1:
            (name, value) = next(iter(node.items()))
            if name == "Ref":
                return _NO_VALUE if value == "AWS::NoValue" else self.ref(value)
            if name.startswith("Fn::"):
                return self._intrinsic(name, value)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not _NO_VALUE}

    def _intrinsic(self, name: str, value: Any) -> Any:
        match name:
            case "Fn::GetAtt":
                return self.attribute(value[0], value[1])
            case "Fn::Sub":
                text, own = (value, {}) if isinstance(value, str) else value
                return _SUB.sub(lambda match: str(self._substituted(match[1], own)), text)
            case "Fn::If":  # every optional part is there
                chosen = self.resolve(value[1])
                return self.resolve(value[2]) if chosen is _NO_VALUE else chosen
            case "Fn::FindInMap":
                table, first, second = (self.resolve(part) for part in value)
                return self.template["Mappings"][table][first][second]
            case "Fn::Join":
                return value[0].join(map(str, self.resolve(value[1])))
        raise NotImplementedError(f"{name} in a policy")

    def _substituted(self, name: str, own: Mapping[str, Any]) -> Any:
        if name in own:
            return self.resolve(own[name])
        logical_id, dot, attribute = name.partition(".")
        return self.attribute(logical_id, attribute) if dot else self.ref(name)

    @cached_property
    def policies(self) -> list[StackPolicy]:
        """All policies, in the order of the template."""
        return list(self._policies())

    def _policies(self) -> Iterator[StackPolicy]:
        for logical_id, resource in self.resources.items():
            properties = resource.get("Properties", {})
            match resource["Type"]:
                case "AWS::IAM::Role":
                    document = self.resolve(properties["AssumeRolePolicyDocument"])
                    yield StackPolicy(logical_id, "trust", "trust", document, self.name(logical_id))
                    for policy in properties.get("Policies", ()):
                        found = self.resolve(policy)
                        name, document = found["PolicyName"], found["PolicyDocument"]
                        yield StackPolicy(logical_id, "identity", name, document, self.name(logical_id))
                case "AWS::IAM::Policy":
                    document = self.resolve(properties["PolicyDocument"])
                    for role in properties["Roles"]:
                        name = self.resolve(properties["PolicyName"])
                        yield StackPolicy(role["Ref"], "identity", name, document, self.name(role["Ref"]))
                case "AWS::KMS::Key":
                    document = self.resolve(properties["KeyPolicy"])
                    yield StackPolicy(logical_id, "key", "key", document, self.name(logical_id))
                case "AWS::S3::BucketPolicy":
                    owner = properties["Bucket"]["Ref"]
                    document = self.resolve(properties["PolicyDocument"])
                    yield StackPolicy(owner, "bucket", logical_id, document, self.name(owner))
                case "AWS::SNS::TopicPolicy" | "AWS::SQS::QueuePolicy":
                    kind: Kind = "topic" if "SNS" in resource["Type"] else "queue"
                    document = self.resolve(properties["PolicyDocument"])
                    for reference in properties.get("Topics") or properties["Queues"]:
                        owner = reference["Ref"]
                        yield StackPolicy(owner, kind, logical_id, document, self.name(owner))
                case "AWS::Lambda::Permission":
                    statement = self._permission(properties)
                    function = statement["Resource"].split(":")[6]
                    yield StackPolicy(logical_id, "function", logical_id, {"Statement": [statement]}, function)

    def _permission(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        found = self.resolve(properties)
        sources = {
            "AWS:SourceArn": found.get("SourceArn"),
            "AWS:SourceAccount": found.get("SourceAccount"),
            "lambda:FunctionUrlAuthType": found.get("FunctionUrlAuthType"),
        }
        conditions: dict[str, Any] = {}
        for key, value in sources.items():
            if value:
                conditions.setdefault("ArnLike" if key == "AWS:SourceArn" else "StringEquals", {})[key] = value
        principal = found["Principal"]
        return {
            "Effect": "Allow",
            "Principal": {"Service": principal} if principal.endswith(".amazonaws.com") else {"AWS": principal},
            "Action": found["Action"],
            "Resource": self.function_arn(found["FunctionName"]),
            **({"Condition": conditions} if conditions else {}),
        }

    def logical_names(self, physical_ids: Mapping[str, str]) -> dict[str, str]:
        """What to replace in the record of a running stack: physical names by those that this class gives."""
        found = {}
        for logical_id, physical_id in physical_ids.items():
            if logical_id in self.resources and self.resources[logical_id]["Type"] in _ARNS:
                is_address = physical_id.startswith(("arn:", "http"))
                physical = re.split("[:/]", physical_id)[-1] if is_address else physical_id
                found[physical] = self.name(logical_id)
        return {physical: name for physical, name in found.items() if physical != name}
