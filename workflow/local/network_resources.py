"""The resource types of a private network, as AWS API calls. They exist and can be read back; traffic is on loopback.

See resources.py for what a resource type is. A changed one is replaced, also where AWS would change it in place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workflow.local.resources import Properties, Resource, ResourceType, Wanted


class _Network(ResourceType):
    """What they have in common."""

    replaces = True

    @property
    def ec2(self) -> Any:
        """The client."""
        return self.cloud.client("ec2")

    def update(self, resource: Resource, wanted: Wanted) -> None: ...


class Vpc(_Network):
    """AWS::EC2::VPC."""

    def create(self, wanted: Wanted) -> Resource:
        vpc = self.ec2.create_vpc(CidrBlock=wanted.properties["CidrBlock"])["Vpc"]
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            if name in wanted.properties:
                self.ec2.modify_vpc_attribute(VpcId=vpc["VpcId"], **{name: {"Value": _switch(wanted.properties[name])}})
        groups = self.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])
        [default] = [group["GroupId"] for group in groups["SecurityGroups"]]
        attributes = {"VpcId": vpc["VpcId"], "CidrBlock": vpc["CidrBlock"], "DefaultSecurityGroup": default}
        return Resource(vpc["VpcId"], wanted, attributes)

    def delete(self, resource: Resource) -> None:
        self.ec2.delete_vpc(VpcId=resource.physical_resource_id)


class Subnet(_Network):
    """AWS::EC2::Subnet."""

    def create(self, wanted: Wanted) -> Resource:
        request = {key: wanted.properties[key] for key in ("VpcId", "CidrBlock", "AvailabilityZone")
                   if key in wanted.properties}  # fmt: skip
        subnet = self.ec2.create_subnet(**request)["Subnet"]
        attributes = {"SubnetId": subnet["SubnetId"], "AvailabilityZone": subnet["AvailabilityZone"]}
        return Resource(subnet["SubnetId"], wanted, attributes)

    def delete(self, resource: Resource) -> None:
        self.ec2.delete_subnet(SubnetId=resource.physical_resource_id)


class RouteTable(_Network):
    """AWS::EC2::RouteTable."""

    def create(self, wanted: Wanted) -> Resource:
        table = self.ec2.create_route_table(VpcId=wanted.properties["VpcId"])["RouteTable"]["RouteTableId"]
        return Resource(table, wanted, {"RouteTableId": table})

    def delete(self, resource: Resource) -> None:
        self.ec2.delete_route_table(RouteTableId=resource.physical_resource_id)


class SubnetRouteTableAssociation(_Network):
    """AWS::EC2::SubnetRouteTableAssociation."""

    def create(self, wanted: Wanted) -> Resource:
        association = self.ec2.associate_route_table(**wanted.properties)["AssociationId"]
        return Resource(association, wanted, {"Id": association})

    def delete(self, resource: Resource) -> None:
        self.ec2.disassociate_route_table(AssociationId=resource.physical_resource_id)


class SecurityGroup(_Network):
    """AWS::EC2::SecurityGroup with its own rules."""

    def create(self, wanted: Wanted) -> Resource:
        properties = wanted.properties
        group = self.ec2.create_security_group(
            GroupName=properties.get("GroupName", wanted.name),
            Description=properties["GroupDescription"],
            VpcId=properties["VpcId"],
        )["GroupId"]
        if ingress := properties.get("SecurityGroupIngress"):
            self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_permission(r) for r in ingress])
        if egress := properties.get("SecurityGroupEgress"):
            everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
            self.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
            self.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[_permission(r) for r in egress])
        return Resource(group, wanted, {"GroupId": group, "Id": group, "VpcId": properties["VpcId"]})

    def delete(self, resource: Resource) -> None:
        self.ec2.delete_security_group(GroupId=resource.physical_resource_id)


class SecurityGroupIngress(_Network):
    """AWS::EC2::SecurityGroupIngress."""

    def create(self, wanted: Wanted) -> Resource:
        group = wanted.properties["GroupId"]
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[_permission(wanted.properties)])
        return Resource(wanted.name, wanted, {"Id": wanted.name})

    def delete(self, resource: Resource) -> None:
        properties = resource.wanted.properties
        self.ec2.revoke_security_group_ingress(GroupId=properties["GroupId"], IpPermissions=[_permission(properties)])


class SecurityGroupEgress(_Network):
    """AWS::EC2::SecurityGroupEgress; the first rule of one's own replaces the one that allows everything."""

    def create(self, wanted: Wanted) -> Resource:
        group = wanted.properties["GroupId"]
        self.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[_permission(wanted.properties)])
        return Resource(wanted.name, wanted, {"Id": wanted.name})

    def delete(self, resource: Resource) -> None:
        properties = resource.wanted.properties
        self.ec2.revoke_security_group_egress(GroupId=properties["GroupId"], IpPermissions=[_permission(properties)])


class VpcEndpoint(_Network):
    """AWS::EC2::VPCEndpoint."""

    def create(self, wanted: Wanted) -> Resource:
        request = {key: value for key, value in wanted.properties.items() if key != "Tags"}
        if "PolicyDocument" in request:
            request["PolicyDocument"] = json.dumps(request["PolicyDocument"])
        if "PrivateDnsEnabled" in request:
            request["PrivateDnsEnabled"] = _switch(request["PrivateDnsEnabled"])
        endpoint = self.ec2.create_vpc_endpoint(**request)["VpcEndpoint"]["VpcEndpointId"]
        return Resource(endpoint, wanted, {"Id": endpoint})

    def delete(self, resource: Resource) -> None:
        self.ec2.delete_vpc_endpoints(VpcEndpointIds=[resource.physical_resource_id])


class FlowLog(_Network):
    """AWS::EC2::FlowLog."""

    def create(self, wanted: Wanted) -> Resource:
        request = {key: value for key, value in wanted.properties.items() if key not in ("ResourceId", "Tags")}
        answer = self.ec2.create_flow_logs(ResourceIds=[wanted.properties["ResourceId"]], **request)
        [flow_log] = answer["FlowLogIds"]
        return Resource(flow_log, wanted, {"Id": flow_log})

    def delete(self, resource: Resource) -> None:
        self.ec2.delete_flow_logs(FlowLogIds=[resource.physical_resource_id])


def _switch(value: Any) -> bool:
    return str(value).lower() == "true"


def _permission(rule: Properties | Mapping[str, Any]) -> dict[str, Any]:
    """A rule of a security group in the words of the API."""
    permission: dict[str, Any] = {"IpProtocol": str(rule["IpProtocol"])}
    if "FromPort" in rule:
        permission |= {"FromPort": int(rule["FromPort"]), "ToPort": int(rule["ToPort"])}
    described = {"Description": rule["Description"]} if "Description" in rule else {}
    other = rule.get("SourceSecurityGroupId") or rule.get("DestinationSecurityGroupId")
    prefix_list = rule.get("SourcePrefixListId") or rule.get("DestinationPrefixListId")
    if other:
        permission["UserIdGroupPairs"] = [{"GroupId": other, **described}]
    elif prefix_list:
        permission["PrefixListIds"] = [{"PrefixListId": prefix_list, **described}]
    else:
        permission["IpRanges"] = [{"CidrIp": rule["CidrIp"], **described}]
    return permission
