"""Step Functions' own opinion of the definition: ValidateStateMachineDefinition, which creates nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workflow.preflight.findings import Finding, Subject, asking, error, warning

if TYPE_CHECKING:
    from workflow.account import Account


def _check(subject: Subject, account: Account) -> Iterator[Finding]:
    text = rendered(subject.definition, subject.config.project.name, account)
    for one in diagnostics(account, text):
        make = error if one["severity"] == "ERROR" else warning
        yield make(
            f"{one['code']}: {one['message']}",
            str(one.get("location", "definition")),
            "Step Functions refuses the state machine."
            if one["severity"] == "ERROR"
            else "Step Functions accepts the state machine, with this reservation.",
            "Correct workflow/definition/; kelpie definition prints what it makes.",
        )


def diagnostics(account: Account, definition: str) -> list[dict[str, Any]]:
    """What Step Functions says about a definition; the first 100."""
    answer = account.client("stepfunctions").validate_state_machine_definition(
        definition=definition, type="STANDARD", severity="WARNING", maxResults=100
    )
    found: list[dict[str, Any]] = answer["diagnostics"]
    return found


def rendered(definition: Mapping[str, Any], project: str, account: Account) -> str:
    """The definition with plausible values for `${Name}`: nothing of it has to exist for its syntax to be judged."""
    account_id, region, partition = account.account_id, account.region, account.partition
    registry = f"dkr.ecr.{region}.{account.dns_suffix}"
    arn = f"arn:{partition}:{{}}:{region}:{account_id}:{{}}".format
    values = {
        "AccountId": account_id,
        "Partition": partition,
        "Region": region,
        "KmsKeyArn": arn("kms", "key/00000000-0000-0000-0000-000000000000"),
        "NotificationTopicArn": arn("sns", f"{project}-preflight"),
        "ServingImage": f"{account_id}.{registry}/{project}-serving@sha256:{'0' * 64}",
        "TrainingImage": f"{account_id}.{registry}/pytorch-training:preflight",
    }

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in values:
            return values[name]
        if name.endswith("FunctionArn"):
            return arn("lambda", f"function:{project}-{name}:live")
        if name.endswith("RoleArn"):
            return f"arn:{partition}:iam::{account_id}:role/{project}-preflight"
        return f"s3://{project}-preflight/assets/" if name.endswith("Uri") else f"{project}-preflight"

    return re.sub(r"\$\{(\w+)\}", value, json.dumps(definition))


check = asking(_check, "Step Functions' validation of the definition", "states:ValidateStateMachineDefinition")
