"""The summary of an execution: what ran, how well, how long, for how much. Assembled from AWS API reads only."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from workflow import executions
from workflow.account import Account
from workflow.cost.pricing import execution_cost
from workflow.explain import explain

TEST_ACCURACY = "test:accuracy"
_PREDICTIONS_SHOWN = 5


def summarize(account: Account, execution: executions.Execution) -> dict[str, Any]:
    """Return the summary as a JSON-able dict; what an execution never reached is None or empty.

    Keys: execution_arn, status, error, cause, test_accuracy (0 to 1), champion_test_accuracy, hosts, interruptions,
    training_seconds and billable_seconds (per instance), seconds_total, seconds_by_state, time_scale (the factor by
    which the local cloud divides AWS's waits; 1 on AWS), training_job_name, endpoint_name, instance_count,
    predictions (the smoke test's), data_warnings (CheckData's), cost_usd_estimate; and of one that did not succeed
    sentence (why, as the notification has it), failed_state, log_tail (the last lines of the process that failed
    first), fix, run (the command to go on with).
    """
    output = execution.output or {}
    job_name = execution.training_job
    job = account.client("sagemaker").describe_training_job(TrainingJobName=job_name) if job_name else {}
    metrics = {metric["MetricName"]: metric["Value"] for metric in job.get("FinalMetricDataList", [])}
    endpoint = _endpoint(account, output)
    explanation = explain(account, execution, job)
    return {
        "execution_arn": execution.arn,
        "status": execution.status,
        "error": execution.error,
        "cause": execution.cause,
        # One that took over an earlier job, or brought a version back, trained nothing itself.
        "test_accuracy": _rounded(metrics.get(TEST_ACCURACY, output.get("gate", {}).get("test_accuracy"))),
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
        "training_job_name": job_name or output.get("train", {}).get("TrainingJobName"),
        "endpoint_name": endpoint.get("EndpointName"),
        "instance_count": _instance_count(endpoint),
        "predictions": output.get("smoke", {}).get("predictions", []),
        "sentence": explanation.sentence if explanation else "",
        "failed_state": explanation.state if explanation else "",
        "log_tail": list(explanation.log_tail) if explanation else [],
        "fix": explanation.fix if explanation else "",
        "run": explanation.run if explanation else "",
        "data_warnings": output.get("data", {}).get("warnings", []),
        "cost_usd_estimate": _cost(execution, job, endpoint, output),
    }


def to_text(summary: dict[str, Any]) -> str:
    """The summary for a person: why it failed and what to do, one line a fact, then the states with their seconds."""
    cost = summary["cost_usd_estimate"]
    facts = [" ".join(summary["sentence"].split())] if summary["sentence"] else []
    facts += [f"  | {line}" for line in summary["log_tail"]]
    facts += [f"{key}: {summary[key]}" for key in ("fix", "run") if summary[key]]
    status = f"{summary['status']} ({summary['error']})" if summary["error"] else summary["status"]
    facts.append(f"{status} after {summary['seconds_total']} s (waits divided by {summary['time_scale']:g})")
    facts += [f"warning, data: {warning}" for warning in summary["data_warnings"]]
    if summary["training_job_name"] is None and summary["status"] != "SUCCEEDED":
        return "\n".join([*facts, *_states(summary)])
    if summary["training_job_name"] and summary["hosts"] is None:
        facts.append(f"the model is that of {summary['training_job_name']}, from an earlier execution")
    elif summary["training_job_name"]:
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
        "transition_count": len(execution.visits),
        "endpoint_per_month": _rounded(cost.endpoint_usd_per_month, 2),
        "spot_saving_percent": _rounded(cost.spot_saving_percent, 1),
        "prices_as_of": cost.prices_as_of,
        "prices_source": cost.prices_source,
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits)
