"""Whether a deployment and an execution would work, answered before they cost anything.

One module for each family of checks. A check is a function from `Subject` to findings; it creates nothing. What needs
an account is asked only when there is one, and reported as "not asked" otherwise.
"""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING

from workflow.cost.costs import planned_parameters
from workflow.deployment import template
from workflow.deployment.rendered import rendered
from workflow.preflight import (
    costs,
    images,
    naming,
    network,
    parameters,
    permissions,
    quotas,
    service,
    settings,
    tasks,
)
from workflow.preflight.findings import Check, Finding, Severity, Subject

if TYPE_CHECKING:
    from workflow.account import Account
    from workflow.config import Config

__all__ = ["CHECKS", "Finding", "Severity", "check", "subject_of"]

CHECKS: dict[str, Check] = {
    "Step Functions": service.check,
    "settings": settings.check,
    "tasks": tasks.check,
    "parameters": parameters.check,
    "names": naming.check,
    "permissions": permissions.check,
    "simulated permissions": permissions.check_deployed,
    "images": images.check,
    "images in the registry": images.check_registry,
    "patches of the serving image": images.check_patches,
    "network": network.check,
    "network in the account": network.check_account,
    "training and endpoint quotas": quotas.check_instances,
    "Lambda quotas": quotas.check_functions,
    "prices": costs.refresh,
    "costs": costs.check,
}
"""The checks by what they are about; the first one asks Step Functions itself."""

_ORDER = list(Severity)


def check(config: Config, account: Account | None = None, *, today: datetime.date | None = None) -> list[Finding]:
    """Everything that is worth knowing before a deployment or an execution, the worst first.

    Args:
        config: The settings.
        account: Where it shall run, AWS or the local cloud; None asks nobody.
        today: The date that end dates are compared with; None takes the clock's.
    """
    subject = subject_of(config, account, today=today)
    found = [finding for check_one in CHECKS.values() for finding in check_one(subject)]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def subject_of(config: Config, account: Account | None = None, *, today: datetime.date | None = None) -> Subject:
    """What the checks look at: the definition and the template of these settings."""
    whole = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))
    return Subject(
        config=config,
        definition=json.loads(rendered(config)),
        template=whole,
        parameters=planned_parameters(config, whole),
        account=account,
        today=today or datetime.datetime.now(tz=datetime.UTC).date(),
    )
