"""Resource types as AWS API calls: what CloudFormation would call to create, change and delete each of them.

Here: what they have in common, and storage, keys, messages, roles, logs. What computes is in compute_resources.py.

moto has some of these types, but changes few of them in place and drops properties without a word. Here each one makes
the ordinary API calls, so botocore checks the property names and the result can be read back like anything else.
Which type is whose is cloudformation.py's table.

Properties arrive resolved (no Ref, no Fn::...). A property that needs a replacement on AWS is not watched for here.
Source of property names and of what Ref and GetAtt return: CloudFormation template reference, read 2026-11-21.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from moto.cloudformation.exceptions import UnformattedGetAttTemplateException

Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A resource as a template wants it."""

    name: str
    """The name in its properties, or a generated one."""
    properties: Properties
    stack_id: str
    logical_id: str
    resource_type: str


@dataclass
class Resource:
    """A resource of a stack, with the interface that moto's stack expects."""

    physical_resource_id: str
    """What Ref returns."""
    wanted: Wanted
    """As it was created or last changed."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What Fn::GetAtt returns."""
    is_deleted: bool = False
    replaced: list[Resource] = field(default_factory=list)
    """What it replaced in an update that is still under way."""

    def get_cfn_attribute(self, name: str) -> Any:
        """The value of Fn::GetAtt."""
        if name not in self.attributes:
            raise UnformattedGetAttTemplateException()
        return self.attributes[name]

    def is_created(self) -> bool:
        """Nothing here is created in the background."""
        return True


@dataclass(frozen=True)
class Cloud:
    """What a resource type needs to know of the local cloud."""

    client: Callable[[str], Any]
    """boto3 client of a service, with the account's root key."""
    account_id: str
    region: str
    answer_url: Callable[[str], str]
    """The URL at which a custom resource's Lambda answers the request with this id."""
    take_answer: Callable[[str], dict[str, Any] | None]
    """The answer to the request with this id, if there was one."""


class ResourceType(ABC):
    """How the properties of one resource type become API calls."""

    name_property: ClassVar[str] = ""
    replaces: ClassVar[bool] = False
    """Whether a change makes a new one, and deletes the old one at the end of the update."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @abstractmethod
    def create(self, wanted: Wanted) -> Resource:
        """Create it."""

    @abstractmethod
    def update(self, resource: Resource, wanted: Wanted) -> None:
        """Change an existing one; `resource.wanted` is still the earlier state."""

    @abstractmethod
    def delete(self, resource: Resource) -> None:
        """Delete it."""


class Bucket(ResourceType):
    """AWS::S3::Bucket: encryption, versioning, public access block, ownership, lifecycle, events, tags; access logs are
    kept as a setting only."""

    name_property = "BucketName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        location = {"CreateBucketConfiguration": {"LocationConstraint": self.cloud.region}}
        self.cloud.client("s3").create_bucket(Bucket=name, **({} if self.cloud.region == "us-east-1" else location))
        self._configure(name, properties)
        return Resource(name, wanted, {"Arn": f"arn:aws:s3:::{name}", "DomainName": f"{name}.s3.amazonaws.com"})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self._configure(resource.physical_resource_id, wanted.properties)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("s3").delete_bucket(Bucket=resource.physical_resource_id)

    def _configure(self, name: str, properties: Properties) -> None:
        s3 = self.cloud.client("s3")
        if versioning := properties.get("VersioningConfiguration"):
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
        if encryption := properties.get("BucketEncryption"):
            rules = [_renamed(rule, ServerSideEncryptionByDefault="ApplyServerSideEncryptionByDefault")
                     for rule in encryption["ServerSideEncryptionConfiguration"]]  # fmt: skip
            s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
        if block := properties.get("PublicAccessBlockConfiguration"):
            s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
        if lifecycle := properties.get("LifecycleConfiguration"):
            rules = [_lifecycle_rule(rule) for rule in lifecycle["Rules"]]
            s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
        if tags := properties.get("Tags"):
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
        if ownership := properties.get("OwnershipControls"):
            s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=ownership)
        events = properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration")
        wants_events = events is not None and str(events.get("EventBridgeEnabled", True)).lower() == "true"
        notifications: dict[str, Any] = {"EventBridgeConfiguration": {}} if wants_events else {}
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=notifications)


class BucketPolicy(ResourceType):
    """AWS::S3::BucketPolicy."""

    def create(self, wanted: Wanted) -> Resource:
        properties = wanted.properties
        policy = json.dumps(properties["PolicyDocument"])
        self.cloud.client("s3").put_bucket_policy(Bucket=properties["Bucket"], Policy=policy)
        return Resource(properties["Bucket"], wanted)

    def update(self, _: Resource, wanted: Wanted) -> None:
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("s3").delete_bucket_policy(Bucket=resource.wanted.properties["Bucket"])


class Key(ResourceType):
    """AWS::KMS::Key."""

    def create(self, wanted: Wanted) -> Resource:
        properties = wanted.properties
        key = self.cloud.client("kms").create_key(
            Policy=json.dumps(properties["KeyPolicy"]),
            Description=properties.get("Description", ""),
            Tags=self._tags(properties),
        )["KeyMetadata"]
        resource = Resource(key["KeyId"], wanted, {"Arn": key["Arn"]})
        self.update(resource, wanted)
        return resource

    def update(self, resource: Resource, wanted: Wanted) -> None:
        kms, key_id = self.cloud.client("kms"), resource.physical_resource_id
        kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=json.dumps(wanted.properties["KeyPolicy"]))
        if tags := self._tags(wanted.properties):
            kms.tag_resource(KeyId=key_id, Tags=tags)
        names = {tag["TagKey"] for tag in tags}
        gone = [tag["TagKey"] for tag in self._tags(resource.wanted.properties) if tag["TagKey"] not in names]
        if gone:
            kms.untag_resource(KeyId=key_id, TagKeys=gone)
        if wanted.properties.get("EnableKeyRotation"):
            kms.enable_key_rotation(KeyId=key_id)
        else:
            kms.disable_key_rotation(KeyId=key_id)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("kms").schedule_key_deletion(KeyId=resource.physical_resource_id)

    @staticmethod
    def _tags(properties: Properties) -> list[dict[str, str]]:
        return [{"TagKey": tag["Key"], "TagValue": tag["Value"]} for tag in properties.get("Tags", [])]


class KeyAlias(ResourceType):
    """AWS::KMS::Alias."""

    name_property = "AliasName"

    def create(self, wanted: Wanted) -> Resource:
        self.cloud.client("kms").create_alias(AliasName=wanted.name, TargetKeyId=wanted.properties["TargetKeyId"])
        return Resource(wanted.name, wanted)

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.cloud.client("kms").update_alias(
            AliasName=resource.physical_resource_id, TargetKeyId=wanted.properties["TargetKeyId"]
        )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("kms").delete_alias(AliasName=resource.physical_resource_id)


class Table(ResourceType):
    """AWS::DynamoDB::Table."""

    name_property = "TableName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        table_parameters = {
            key: value for key, value in properties.items() if key not in ("SSESpecification", _BACKUPS)
        }
        if "SSESpecification" in properties:
            table_parameters["SSESpecification"] = _renamed(properties["SSESpecification"], SSEEnabled="Enabled")
        dynamodb = self.cloud.client("dynamodb")
        table = dynamodb.create_table(**{**table_parameters, "TableName": name})["TableDescription"]
        if _BACKUPS in properties:
            dynamodb.update_continuous_backups(TableName=name, **{_BACKUPS: properties[_BACKUPS]})
        return Resource(name, wanted, {"Arn": table["TableArn"]})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        if _BACKUPS in wanted.properties:
            self.cloud.client("dynamodb").update_continuous_backups(
                TableName=resource.physical_resource_id, **{_BACKUPS: wanted.properties[_BACKUPS]}
            )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("dynamodb").delete_table(TableName=resource.physical_resource_id)


class Topic(ResourceType):
    """AWS::SNS::Topic."""

    name_property = "TopicName"
    _attribute_names: ClassVar = ("DisplayName", "KmsMasterKeyId")

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        attributes = {key: properties[key] for key in self._attribute_names if key in properties}
        arn = self.cloud.client("sns").create_topic(Name=name, Attributes=attributes)["TopicArn"]
        return Resource(arn, wanted, {"TopicArn": arn, "TopicName": name})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        for key in self._attribute_names:
            self.cloud.client("sns").set_topic_attributes(
                TopicArn=resource.physical_resource_id, AttributeName=key, AttributeValue=wanted.properties.get(key, "")
            )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("sns").delete_topic(TopicArn=resource.physical_resource_id)


class Role(ResourceType):
    """AWS::IAM::Role with inline policies."""

    name_property = "RoleName"

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        iam = self.cloud.client("iam")
        trust = json.dumps(properties["AssumeRolePolicyDocument"])
        role = iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=trust, Description=properties.get("Description", "")
        )["Role"]
        self._put_policies(name, properties)
        return Resource(name, wanted, {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        iam, name = self.cloud.client("iam"), resource.physical_resource_id
        iam.update_assume_role_policy(
            RoleName=name, PolicyDocument=json.dumps(wanted.properties["AssumeRolePolicyDocument"])
        )
        self._put_policies(name, wanted.properties)
        for policy_name in self._policy_names(resource.wanted.properties) - self._policy_names(wanted.properties):
            iam.delete_role_policy(RoleName=name, PolicyName=policy_name)

    def delete(self, resource: Resource) -> None:
        iam, name = self.cloud.client("iam"), resource.physical_resource_id
        for policy_name in self._policy_names(resource.wanted.properties):
            iam.delete_role_policy(RoleName=name, PolicyName=policy_name)
        iam.delete_role(RoleName=name)

    def _put_policies(self, name: str, properties: Properties) -> None:
        for policy in properties.get("Policies", ()):
            self.cloud.client("iam").put_role_policy(
                RoleName=name, PolicyName=policy["PolicyName"], PolicyDocument=json.dumps(policy["PolicyDocument"])
            )

    @staticmethod
    def _policy_names(properties: Properties) -> set[str]:
        return {policy["PolicyName"] for policy in properties.get("Policies", ())}


class RolePolicy(ResourceType):
    """AWS::IAM::Policy on roles."""

    def create(self, wanted: Wanted) -> Resource:
        name, properties = wanted.name, wanted.properties
        for role in properties["Roles"]:
            self.cloud.client("iam").put_role_policy(
                RoleName=role,
                PolicyName=properties["PolicyName"],
                PolicyDocument=json.dumps(properties["PolicyDocument"]),
            )
        return Resource(name, wanted)

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.delete(resource)
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        for role in resource.wanted.properties["Roles"]:
            self.cloud.client("iam").delete_role_policy(
                RoleName=role, PolicyName=resource.wanted.properties["PolicyName"]
            )


class LogGroup(ResourceType):
    """AWS::Logs::LogGroup."""

    name_property = "LogGroupName"

    def create(self, wanted: Wanted) -> Resource:
        name = wanted.name
        logs = self.cloud.client("logs")
        logs.create_log_group(logGroupName=name)
        [arn] = [group["arn"] for group in logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
                 if group["logGroupName"] == name]  # fmt: skip
        resource = Resource(name, wanted, {"Arn": arn})
        self.update(resource, wanted)
        return resource

    def update(self, resource: Resource, wanted: Wanted) -> None:
        if "RetentionInDays" in wanted.properties:
            self.cloud.client("logs").put_retention_policy(
                logGroupName=resource.physical_resource_id, retentionInDays=int(wanted.properties["RetentionInDays"])
            )

    def delete(self, resource: Resource) -> None:
        self.cloud.client("logs").delete_log_group(logGroupName=resource.physical_resource_id)


_BACKUPS = "PointInTimeRecoverySpecification"


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    api = _renamed(rule, Id="ID")
    api["Filter"] = {"Prefix": api.pop("Prefix", "")}
    if "ExpirationInDays" in api:
        api["Expiration"] = {"Days": int(api.pop("ExpirationInDays"))}
    return api


def _renamed(mapping: Mapping[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in mapping.items()}
