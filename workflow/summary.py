"""The summary of an execution: what ran, how well, how long, for how much. Assembled from AWS API reads only."""

from __future__ import annotations

import re
from typing import Any

from botocore.exceptions import ClientError

from workflow import executions
from workflow.account import Account
from workflow.pricing import execution_cost

TEST_ACCURACY = "test:accuracy"
_PREDICTIONS_SHOWN = 5
_LOG_LINES_SHOWN = 8


def summarize(account: Account, execution_arn: str) -> dict[str, Any]:
    """Return the summary as a JSON-able dict; what an execution never reached is None or empty.

    Keys: execution_arn, status, error, cause, test_accuracy (0 to 1), champion_test_accuracy, hosts, interruptions,
    training_seconds and billable_seconds (per instance), seconds_total, seconds_by_state, time_scale (the factor by
    which the local cloud divides AWS's waits; 1 on AWS), training_job_name, endpoint_name, instance_count,
    predictions (the smoke test's), log_tail (of a failed training job: the last lines of the host that failed first),
    cost_usd_estimate.
    """
    execution = executions.describe(account, execution_arn)
    output = execution.output or {}
    job_name = executions.training_job_name(account, execution_arn)
    job = account.client("sagemaker").describe_training_job(TrainingJobName=job_name) if job_name else {}
    metrics = {metric["MetricName"]: metric["Value"] for metric in job.get("FinalMetricDataList", [])}
    endpoint = _endpoint(account, output)
    return {
        "execution_arn": execution.arn,
        "status": execution.status,
        "error": execution.error,
        "cause": execution.cause,
        "test_accuracy": _rounded(metrics.get(TEST_ACCURACY)),
        "champion_test_accuracy": output.get("gate", {}).get("champion_test_accuracy"),
        "hosts": job.get("ResourceConfig", {}).get("InstanceCount"),
        "interruptions": sum(
            transition["Status"] == "Interrupted" for transition in job.get("SecondaryStatusTransitions", [])
        ),
        "training_seconds": job.get("TrainingTimeInSeconds"),
        "billable_seconds": job.get("BillableTimeInSeconds"),
        "seconds_total": round(execution.seconds, 1),
        "seconds_by_state": execution.seconds_by_state(),
        "time_scale": execution.time_scale,
        "training_job_name": job_name,
        "endpoint_name": endpoint.get("EndpointName"),
        "instance_count": _instance_count(endpoint),
        "predictions": output.get("smoke", {}).get("predictions", []),
        "log_tail": _log_tail(account, job),
        "cost_usd_estimate": _cost(execution, job, endpoint, output),
    }


def _log_tail(account: Account, job: dict[str, Any]) -> list[str]:
    if job.get("TrainingJobStatus") != "Failed":
        return []
    host = re.search(r"\((algo-\d+)\)", job.get("FailureReason", ""))
    lines = executions.training_log(account, job["TrainingJobName"], host[1] if host else "algo-1")
    return lines[-_LOG_LINES_SHOWN:]


def to_text(summary: dict[str, Any]) -> str:
    """The summary for a person: one line a fact, then the states with their seconds."""
    cost = summary["cost_usd_estimate"]
    facts = [f"{summary['status']} after {summary['seconds_total']} s (waits divided by {summary['time_scale']:g})"]
    if summary["error"]:
        facts.append(f"{summary['error']}: {summary['cause']}")
    facts += [f"  | {line}" for line in summary["log_tail"]]
    if summary["training_job_name"] is None and summary["status"] != "SUCCEEDED":
        return "\n".join([*facts, *_states(summary)])
    if summary["training_job_name"]:
        facts.append(f"training on {summary['hosts']} hosts, interruptions: {summary['interruptions']}")
    if summary["billable_seconds"] is not None:
        facts.append(
            f"{summary['billable_seconds']} of {summary['training_seconds']} s billed per host (waiting is free)"
        )
    if summary["test_accuracy"] is not None:
        facts.append(f"test accuracy {summary['test_accuracy']:.1%}")
    if summary["endpoint_name"]:
        facts.append(f"endpoint {summary['endpoint_name']} with {summary['instance_count']} instance(s)")
    if summary["predictions"]:
        right = [prediction["label"] == prediction["predicted"] for prediction in summary["predictions"]]
        facts.append(f"smoke test: {sum(right)} of {len(right)} pictures right, the first {_PREDICTIONS_SHOWN}:")
    for prediction in summary["predictions"][:_PREDICTIONS_SHOWN]:
        sign = "=" if prediction["label"] == prediction["predicted"] else "≠"
        facts.append(
            f"  {prediction['label']} {sign} {prediction['predicted']} "
            f"({prediction['probability']:.0%}, {prediction['latency_ms']:.0f} ms)"
        )
    if cost["total"] is not None and summary["billable_seconds"] is not None:
        month = cost["endpoint_per_month"]
        endpoint = f", and {month:.2f} USD a month for the endpoint" if month else ""
        facts.append(
            f"on AWS: about {cost['total']:.4f} USD for this execution{endpoint} "
            f"(prices of {cost['prices_as_of']}: {cost['prices_source']})"
        )
    return "\n".join([*facts, *_states(summary)])


def _states(summary: dict[str, Any]) -> list[str]:
    spent = [f"  {seconds:8.1f} s  {name}" for name, seconds in summary["seconds_by_state"].items() if seconds >= 0.1]
    return ["seconds by state (0.1 s and more):", *spent] if spent else []


def _endpoint(account: Account, output: dict[str, Any]) -> dict[str, Any]:
    name = output.get("names", {}).get("endpoint")
    if not name:
        return {}
    try:
        described: dict[str, Any] = account.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError as error:
        if "Could not find endpoint" in str(error):  # deleted since; SageMaker has no error code of its own for it
            return {}
        raise
    return described


def _instance_count(endpoint: dict[str, Any]) -> int | None:
    variants = endpoint.get("ProductionVariants", [])
    return sum(variant.get("CurrentInstanceCount", 0) for variant in variants) if variants else None


def _cost(
    execution: executions.Execution, job: dict[str, Any], endpoint: dict[str, Any], output: dict[str, Any]
) -> dict[str, Any]:
    resources = job.get("ResourceConfig", {})
    cost = execution_cost(
        training_instance_type=resources.get("InstanceType", ""),
        training_instance_count=resources.get("InstanceCount", 0),
        training_seconds=job.get("TrainingTimeInSeconds", 0),
        billable_seconds=job.get("BillableTimeInSeconds", 0),
        state_transitions=len(execution.visits),
        hosting_instance_type=output.get("settings", {}).get("hosting", {}).get("instance_type", ""),
        hosting_instance_count=_instance_count(endpoint) or 0,
    )
    return {
        "total": _rounded(cost.total_usd, 6),
        "training": _rounded(cost.training_usd, 6),
        "state_transitions": _rounded(cost.transitions_usd, 6),
        "endpoint_per_month": _rounded(cost.endpoint_usd_per_month, 2),
        "spot_saving_percent": _rounded(cost.spot_saving_percent, 1),
        "prices_as_of": cost.prices_as_of,
        "prices_source": cost.prices_source,
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits)
