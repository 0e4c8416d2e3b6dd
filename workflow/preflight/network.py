"""The network of one's own, where there is one: two Availability Zones, and hosts that may talk to each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workflow.preflight.findings import Finding, Subject, asking, error, warning

if TYPE_CHECKING:
    from workflow.account import Account

_SUBNETS, _GROUPS = "vpc.subnet_ids", "vpc.security_group_ids"


def check(subject: Subject) -> Iterator[Finding]:
    """What can be told from the lists alone."""
    vpc = subject.config.vpc
    if bool(vpc.subnet_ids) != bool(vpc.security_group_ids):
        missing = _GROUPS if vpc.subnet_ids else _SUBNETS
        yield error(
            f"{missing} is empty, and the other list of [vpc] is not.",
            missing,
            "SageMaker wants both or none.",
            "Name both, or leave both out.",
        )
    if len(vpc.subnet_ids) == 1:
        yield warning(
            "There is one subnet.",
            _SUBNETS,
            "When its Availability Zone fails or has no capacity, training and the endpoint stand still.",
            "Name subnets of two Availability Zones.",
        )


def _check_account(subject: Subject, account: Account) -> Iterator[Finding]:
    """What the subnets and security groups are."""
    vpc = subject.config.vpc
    if not vpc.subnet_ids or not vpc.security_group_ids:
        return
    ec2 = account.client("ec2")
    subnets = ec2.describe_subnets(SubnetIds=list(vpc.subnet_ids))["Subnets"]
    groups = ec2.describe_security_groups(GroupIds=list(vpc.security_group_ids))["SecurityGroups"]
    zones = {subnet["AvailabilityZone"] for subnet in subnets}
    if len(vpc.subnet_ids) > 1 and len(zones) < 2:
        yield warning(
            f"All subnets are in {', '.join(sorted(zones))}.",
            _SUBNETS,
            "When this Availability Zone fails or has no capacity, training and the endpoint stand still.",
            "Name subnets of two Availability Zones.",
        )
    networks = {item["VpcId"] for item in (*subnets, *groups)}
    if len(networks) > 1:
        yield error(
            f"The subnets and security groups are of {len(networks)} VPCs: {', '.join(sorted(networks))}.",
            "vpc",
            "SageMaker refuses the training job.",
            "Name subnets and security groups of one VPC.",
        )
    hosts = subject.config.training.instance_count + subject.config.hosting.max_instance_count * 2
    free = sum(subnet["AvailableIpAddressCount"] for subnet in subnets)
    if free < hosts:
        yield warning(
            f"The subnets have {free} free addresses; training and an update of the endpoint can need {hosts}.",
            _SUBNETS,
            "What finds no address fails to start.",
            "Name larger subnets.",
        )
    if subject.config.training.instance_count > 1 and not any(_admits_itself(group) for group in groups):
        yield error(
            "No security group admits its own members.",
            _GROUPS,
            "The training hosts cannot reach each other, and the job hangs until it times out.",
            "Add an inbound rule to one of them: all TCP from the group itself.",
        )


def _admits_itself(group: dict[str, Any]) -> bool:
    """Whether members reach each other: torch.distributed uses any TCP port."""
    for rule in group.get("IpPermissions", ()):
        ports = rule.get("FromPort", 0) in (0, -1) and rule.get("ToPort", 65_535) in (65_535, -1)
        every_port = rule["IpProtocol"] == "-1" or (rule["IpProtocol"] == "tcp" and ports)
        if every_port and any(pair["GroupId"] == group["GroupId"] for pair in rule.get("UserIdGroupPairs", ())):
            return True
    return False


_asking = asking(_check_account, "the subnets and security groups", "ec2:DescribeSubnets, ec2:DescribeSecurityGroups")


def check_account(subject: Subject) -> Iterator[Finding]:
    """The same, asked of the account, when kelpie.toml names a network."""
    if subject.config.vpc.subnet_ids:
        yield from _asking(subject)
