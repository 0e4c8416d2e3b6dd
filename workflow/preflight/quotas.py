"""How many instances, and how much of Lambda's concurrency, the account may use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workflow.preflight.findings import Finding, Subject, asking, error, info, warning

if TYPE_CHECKING:
    from workflow.account import Account

UNRESERVED = 100
"""Executions that reservations, and provisioned concurrency without one, must leave over. Source: Lambda developer
guide, reserved and provisioned concurrency, read 2026-11."""


def wanted_quotas(subject: Subject) -> list[tuple[str, int, bool, str]]:
    """Name of the quota, instances wanted, whether nothing works with fewer, and the setting.

    An update runs the new fleet beside the old one, so the endpoint can need twice its largest number. The names are
    those that Service Quotas lists for SageMaker (public reports, read 2026-11).
    """
    training, hosting = subject.config.training, subject.config.hosting
    on_demand = (f"{training.instance_type} for training job usage", training.instance_count)
    spot = (f"{training.instance_type} for spot training job usage", training.instance_count)
    endpoint = f"{hosting.instance_type} for endpoint usage"
    wanted = [(*on_demand, not training.managed_spot, "training.instance_count")]
    if training.managed_spot:
        wanted.insert(0, (*spot, True, "training.instance_count"))
    wanted.append((endpoint, hosting.min_instance_count, True, "hosting.min_instance_count"))
    wanted.append((endpoint, hosting.max_instance_count * 2, False, "hosting.max_instance_count"))
    return wanted


def _check_instances(subject: Subject, account: Account) -> Iterator[Finding]:
    if account.endpoint_url is not None:
        yield info("not asked: the quotas of instances", "service-quotas", "The local cloud has no quotas.")
        return
    pages = account.client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    limits = {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}
    for name, count, required, where in wanted_quotas(subject):
        limit = limits.get(name)
        fix = f"Request {count} of '{name}' in the Service Quotas console, or choose another instance type."
        if limit is None:
            yield warning(f"Service Quotas lists no '{name}'.", where, "SageMaker may not offer the type here.", fix)
        elif limit < count and required:
            yield error(
                f"The account may use {limit:g} of '{name}'; {count} are wanted.",
                where,
                "SageMaker refuses with ResourceLimitExceeded.",
                fix,
            )
        elif limit < count:
            yield warning(
                f"The account may use {limit:g} of '{name}'; up to {count} can be wanted.",
                where,
                "The fall-back to on-demand capacity fails."
                if "training" in where
                else "An update of the whole fleet runs both fleets at once, and then fails and is rolled back.",
                fix,
            )


def _check_functions(subject: Subject, account: Account) -> Iterator[Finding]:
    limits = account.client("lambda").get_account_settings()["AccountLimit"]
    total, free = limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]
    wanted = int(subject.parameters.get("ClassifyReservedConcurrency") or 0)
    where = "concurrency.classify_reserved"
    own = _own_reservation(subject, account)
    if wanted > 0 and free + own - wanted < UNRESERVED:
        yield error(
            f"{wanted} reserved executions would leave {free + own - wanted} of {total} unreserved.",
            where,
            f"Lambda refuses a reservation that leaves fewer than {UNRESERVED}, and the deployment fails.",
            f"Reserve at most {max(0, int(free + own - UNRESERVED))}, or request more 'Concurrent executions' in the "
            "Service Quotas console.",
        )
    if wanted == 0:
        yield from _provisioned(subject, free + own, total)
    if total < UNRESERVED:
        yield info(
            f"The account may run {total} Lambda functions at once.",
            where,
            "New accounts begin low. It is enough for executions; an application that classifies may be throttled.",
        )


def _provisioned(subject: Subject, free: int, total: int) -> Iterator[Finding]:
    """Without a reservation of its own, the function's provisioned concurrency comes out of the account's `free`."""
    concurrency = subject.config.concurrency
    fix = (
        f"Provision at most {max(0, free - UNRESERVED)}, or request more 'Concurrent executions' in the Service Quotas "
        "console."
    )
    if concurrency.classify_provisioned_min > free - UNRESERVED and concurrency.classify_provisioned_min > 0:
        yield error(
            f"{concurrency.classify_provisioned_min} provisioned executions would leave "
            f"{free - concurrency.classify_provisioned_min} of {total} unreserved.",
            "concurrency.classify_provisioned_min",
            f"Lambda refuses provisioned concurrency that leaves fewer than {UNRESERVED}, and none is there.",
            fix,
        )
    elif concurrency.classify_provisioned_max > free - UNRESERVED and concurrency.classify_provisioned_max > 0:
        yield warning(
            f"{concurrency.classify_provisioned_max} provisioned executions would leave "
            f"{free - concurrency.classify_provisioned_max} of {total} unreserved.",
            "concurrency.classify_provisioned_max",
            f"Lambda refuses provisioned concurrency that leaves fewer than {UNRESERVED}: scaling stops before its "
            "largest number.",
            fix,
        )


def _own_reservation(subject: Subject, account: Account) -> int:
    """What this project's stack has reserved already: changing it gives that back first."""
    client = account.client("lambda")
    try:
        answer = client.get_function_concurrency(FunctionName=f"{subject.config.project.name}-classify")
    except client.exceptions.ResourceNotFoundException:
        return 0
    return int(answer.get("ReservedConcurrentExecutions", 0))


check_instances = asking(_check_instances, "the quotas of instances", "servicequotas:ListServiceQuotas")
check_functions = asking(_check_functions, "the quota of Lambda's concurrency", "lambda:GetAccountSettings")
