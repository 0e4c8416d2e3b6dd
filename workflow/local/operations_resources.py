"""The resource types with which an account is operated, as AWS API calls: scaling of functions, dashboards, money,
audit, images, builds. See resources.py for what a resource type is.
"""

from __future__ import annotations

import json
from typing import Any

from workflow.local.resources import Properties, Resource, ResourceType, Wanted


class ScalableTarget(ResourceType):
    """AWS::ApplicationAutoScaling::ScalableTarget."""

    _names = ("ServiceNamespace", "ResourceId", "ScalableDimension")

    def create(self, wanted: Wanted) -> Resource:
        request = {**wanted.properties}
        request |= {key: int(request[key]) for key in ("MinCapacity", "MaxCapacity")}
        self.cloud.client("application-autoscaling").register_scalable_target(**request)
        named = wanted.properties
        identity = "|".join((named["ResourceId"], named["ScalableDimension"], named["ServiceNamespace"]))
        return Resource(identity, wanted, {"Id": identity})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        if [wanted.properties[key] for key in self._names] != [resource.wanted.properties[key] for key in self._names]:
            self.delete(resource)
        resource.physical_resource_id = self.create(wanted).physical_resource_id

    def delete(self, resource: Resource) -> None:
        named = {key: resource.wanted.properties[key] for key in self._names}
        self.cloud.client("application-autoscaling").deregister_scalable_target(**named)


class ScalingPolicy(ResourceType):
    """AWS::ApplicationAutoScaling::ScalingPolicy."""

    name_property = "PolicyName"

    def create(self, wanted: Wanted) -> Resource:
        request = {**wanted.properties, "PolicyName": wanted.name, **self._target(wanted.properties)}
        request.pop("ScalingTargetId", None)
        arn = self.cloud.client("application-autoscaling").put_scaling_policy(**request)["PolicyARN"]
        return Resource(arn, wanted, {"Arn": arn, "PolicyName": wanted.name})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        resource.physical_resource_id = self.create(wanted).physical_resource_id

    def delete(self, resource: Resource) -> None:
        client = self.cloud.client("application-autoscaling")
        named = {"PolicyName": resource.wanted.name, **self._target(resource.wanted.properties)}
        known = client.describe_scaling_policies(ServiceNamespace=named["ServiceNamespace"])["ScalingPolicies"]
        if any(policy["PolicyARN"] == resource.physical_resource_id for policy in known):  # it goes with its target too
            client.delete_scaling_policy(**named)

    @staticmethod
    def _target(properties: Properties) -> dict[str, str]:
        if "ScalingTargetId" in properties:
            resource_id, dimension, namespace = properties["ScalingTargetId"].split("|")
            return {"ResourceId": resource_id, "ScalableDimension": dimension, "ServiceNamespace": namespace}
        return {key: properties[key] for key in ("ResourceId", "ScalableDimension", "ServiceNamespace")}


class Dashboard(ResourceType):
    """AWS::CloudWatch::Dashboard."""

    name_property = "DashboardName"

    def create(self, wanted: Wanted) -> Resource:
        body = wanted.properties["DashboardBody"]
        self.cloud.client("cloudwatch").put_dashboard(
            DashboardName=wanted.name, DashboardBody=body if isinstance(body, str) else json.dumps(body)
        )
        return Resource(wanted.name, wanted)

    def update(self, _: Resource, wanted: Wanted) -> None:
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("cloudwatch").delete_dashboards(DashboardNames=[resource.physical_resource_id])


class Budget(ResourceType):
    """AWS::Budgets::Budget; nothing is spent here, and nobody warned."""

    def create(self, wanted: Wanted) -> Resource:
        budget = dict(wanted.properties["Budget"])
        budget.setdefault("BudgetName", wanted.name)
        if "BudgetLimit" in budget:
            budget["BudgetLimit"] = {**budget["BudgetLimit"], "Amount": str(budget["BudgetLimit"]["Amount"])}
        self.cloud.client("budgets").create_budget(
            AccountId=self.cloud.account_id,
            Budget=budget,
            NotificationsWithSubscribers=wanted.properties.get("NotificationsWithSubscribers", []),
        )
        return Resource(budget["BudgetName"], wanted)

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.delete(resource)
        resource.physical_resource_id = self.create(wanted).physical_resource_id

    def delete(self, resource: Resource) -> None:
        self.cloud.client("budgets").delete_budget(
            AccountId=self.cloud.account_id, BudgetName=resource.physical_resource_id
        )


class Trail(ResourceType):
    """AWS::CloudTrail::Trail; it is kept, and nothing is recorded."""

    name_property = "TrailName"

    def create(self, wanted: Wanted) -> Resource:
        client, name = self.cloud.client("cloudtrail"), wanted.name
        arn = client.create_trail(Name=name, **self._settings(wanted.properties))["TrailARN"]
        self._configure(name, wanted.properties)
        return Resource(name, wanted, {"Arn": arn})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        name = resource.physical_resource_id
        self.cloud.client("cloudtrail").update_trail(Name=name, **self._settings(wanted.properties))
        self._configure(name, wanted.properties)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("cloudtrail").delete_trail(Name=resource.physical_resource_id)

    def _configure(self, name: str, properties: Properties) -> None:
        client = self.cloud.client("cloudtrail")
        if selectors := properties.get("EventSelectors"):
            client.put_event_selectors(TrailName=name, EventSelectors=selectors)
        if selectors := properties.get("AdvancedEventSelectors"):
            client.put_event_selectors(TrailName=name, AdvancedEventSelectors=selectors)
        (client.start_logging if properties.get("IsLogging", True) else client.stop_logging)(Name=name)

    @staticmethod
    def _settings(properties: Properties) -> dict[str, Any]:
        names = {"KMSKeyId": "KmsKeyId", "EnableLogFileValidation": "EnableLogFileValidation"}
        left_out = ("TrailName", "IsLogging", "EventSelectors", "AdvancedEventSelectors", "Tags", "InsightSelectors")
        return {names.get(key, key): value for key, value in properties.items() if key not in left_out}


class Repository(ResourceType):
    """AWS::ECR::Repository."""

    name_property = "RepositoryName"

    def create(self, wanted: Wanted) -> Resource:
        properties = wanted.properties
        request: dict[str, Any] = {"repositoryName": wanted.name}
        if "ImageTagMutability" in properties:
            request["imageTagMutability"] = properties["ImageTagMutability"]
        if "ImageScanningConfiguration" in properties:
            request["imageScanningConfiguration"] = {
                "scanOnPush": bool(properties["ImageScanningConfiguration"]["ScanOnPush"])
            }
        if "EncryptionConfiguration" in properties:
            request["encryptionConfiguration"] = lower_first(properties["EncryptionConfiguration"])
        repository = self.cloud.client("ecr").create_repository(**request)["repository"]
        resource = Resource(
            wanted.name,
            wanted,
            {"Arn": repository["repositoryArn"], "RepositoryUri": repository["repositoryUri"]},
        )
        self._put_policies(wanted)
        return resource

    def update(self, resource: Resource, wanted: Wanted) -> None:
        ecr, properties = self.cloud.client("ecr"), wanted.properties
        name = resource.physical_resource_id
        if "ImageTagMutability" in properties:
            ecr.put_image_tag_mutability(repositoryName=name, imageTagMutability=properties["ImageTagMutability"])
        self._put_policies(wanted)

    def delete(self, resource: Resource) -> None:
        force = bool(resource.wanted.properties.get("EmptyOnDelete"))
        self.cloud.client("ecr").delete_repository(repositoryName=resource.physical_resource_id, force=force)

    def _put_policies(self, wanted: Wanted) -> None:
        ecr, name = self.cloud.client("ecr"), wanted.name
        if text := wanted.properties.get("LifecyclePolicy", {}).get("LifecyclePolicyText"):
            ecr.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=text)
        if policy := wanted.properties.get("RepositoryPolicyText"):
            ecr.set_repository_policy(
                repositoryName=name, policyText=policy if isinstance(policy, str) else json.dumps(policy)
            )


class BuildProject(ResourceType):
    """AWS::CodeBuild::Project."""

    name_property = "Name"

    def create(self, wanted: Wanted) -> Resource:
        request = self._request(wanted.name, wanted.properties)
        project = self.cloud.client("codebuild").create_project(**request)["project"]
        return Resource(wanted.name, wanted, {"Arn": project["arn"]})

    def update(self, resource: Resource, wanted: Wanted) -> None:
        self.delete(resource)
        self.create(wanted)

    def delete(self, resource: Resource) -> None:
        self.cloud.client("codebuild").delete_project(name=resource.physical_resource_id)

    @staticmethod
    def _request(name: str, properties: Properties) -> dict[str, Any]:
        request = lower_first({**properties, "Name": name})
        if "source" in request and "buildSpec" in request["source"]:
            request["source"]["buildspec"] = request["source"].pop("buildSpec")
        request.pop("visibility", None)
        return dict(request)


def lower_first(value: Any) -> Any:
    """CloudFormation's names of properties as the services with camelCase write them."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: lower_first(item) for key, item in value.items()}
    return [lower_first(item) for item in value] if isinstance(value, list) else value
