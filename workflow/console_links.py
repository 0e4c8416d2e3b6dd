"""Addresses of pages of the AWS console.

Source: what public repositories print for these pages (several for each form and for each partition's domain), looked
up 2026-11-22. AWS documents none of these addresses, and this project has opened none.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from workflow.account import Account
from workflow.deployment.stack import StackOutputs

_DOMAINS = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


def links(account: Account, outputs: StackOutputs, stack_id: str) -> Iterator[tuple[str, str]]:
    """What to look at, and where."""
    region = account.region
    domain = _DOMAINS.get(account.partition, _DOMAINS["aws"])

    def page(service: str, fragment: str) -> str:
        return f"https://{region}.{domain}/{service}/home?region={region}#{fragment}"

    yield "state machine and its executions", page("states", f"/statemachines/view/{outputs.state_machine_arn}")
    yield "endpoint, once there is one", page("sagemaker", f"/endpoints/{outputs.endpoint_name}")
    if outputs.dashboard_name:
        yield "dashboard", page("cloudwatch", f"dashboards/dashboard/{outputs.dashboard_name}")
    yield "stack", page("cloudformation", f"/stacks/stackinfo?stackId={quote(stack_id, safe='')}")
