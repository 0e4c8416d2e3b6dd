"""The main path, really executed: what a first execution with one spot interruption leaves as evidence."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from integration.harness import LocalCloud, lock_owner

from workflow import executions
from workflow.summary import summarize

STARTED = re.compile(r"host=(\S+) rank=(\d+) world_size=(\d+) pid=(\d+) resumed_step=(\d+) total_steps=(\d+)")


@pytest.fixture(scope="module")
def starts(local_cloud: LocalCloud, first_execution: executions.Execution) -> dict[str, list[dict[str, int]]]:
    """What each host logged at each of its starts."""
    name = first_execution.training_job
    assert name
    found = {}
    for host in ("algo-1", "algo-2"):
        lines = executions.training_log(local_cloud.account, name, host)
        matches = [match for line in lines if (match := STARTED.search(line))]
        keys = ("rank", "world_size", "pid", "resumed_step", "total_steps")
        found[host] = [dict(zip(keys, map(int, match.groups()[1:]), strict=True)) for match in matches]
    return found


def test_the_states_are_visited_in_the_order_of_the_story(first_execution: executions.Execution) -> None:
    names = list(dict.fromkeys(visit.name for visit in first_execution.visits))
    story = ["ResolveInput", "AcquireLock", "CheckData", "Train", "QualityGate", "RegisterVersion", "CreateModel",
             "CreateEndpointConfig", "DescribeEndpoint", "CreateEndpoint", "RegisterScalableTarget",
             "PutScalingPolicy", "SmokeTest", "PruneOldVersions", "ReleaseLock", "NotifySuccess"]  # fmt: skip
    assert [name for name in names if name in story] == story
    assert "UpdateEndpoint" not in names


def test_an_interrupted_job_goes_on_in_new_processes_from_its_checkpoint(
    starts: dict[str, list[dict[str, int]]],
) -> None:
    for host, attempts in starts.items():
        assert len(attempts) == 2, host
        assert attempts[0]["pid"] != attempts[1]["pid"]
        assert attempts[0]["resumed_step"] == 0
        assert 0 < attempts[1]["resumed_step"] < attempts[1]["total_steps"]


def test_at_most_one_checkpoint_interval_is_repeated(
    local_cloud: LocalCloud, first_execution: executions.Execution, starts: dict[str, list[dict[str, int]]]
) -> None:
    name = first_execution.training_job
    assert name
    assert first_execution.output
    log = "\n".join(executions.training_log(local_cloud.account, name))
    (reached,) = re.findall(r"interrupted: stopped after step (\d+) of", log)
    repeated = int(reached) - starts["algo-1"][1]["resumed_step"]
    assert 0 <= repeated <= first_execution.output["settings"]["training"]["checkpoint_interval_steps"]


def test_the_interruption_is_in_the_description_and_is_not_billed(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    job = local_cloud.training_job(first_execution)
    assert job["EnableManagedSpotTraining"] is True
    transitions = job["SecondaryStatusTransitions"]
    statuses = [transition["Status"] for transition in transitions]
    interrupted = statuses.index("Interrupted")
    assert statuses.count("Interrupted") == 1
    assert "Training" in statuses[:interrupted]
    assert "Training" in statuses[interrupted:]
    waited = (transitions[interrupted]["EndTime"] - transitions[interrupted]["StartTime"]).total_seconds()
    assert waited >= 1
    # Whole seconds: each of the two figures is off by less than one.
    unbilled = job["TrainingTimeInSeconds"] - job["BillableTimeInSeconds"]
    assert unbilled == pytest.approx(waited, abs=1.5)
    assert unbilled > 0
    assert job["BillableTimeInSeconds"] > 0


def test_the_hosts_saw_disjoint_pictures_and_ended_with_equal_weights(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    evidence = local_cloud.evidence(first_execution)
    hosts = [evidence["host-0.json"], evidence["host-1.json"]]
    assert hosts[0]["pid"] != hosts[1]["pid"]
    assert hosts[0]["weights_sha256"] == hosts[1]["weights_sha256"]
    first, second = (set(host["features"]["picture_indices"]) for host in hosts)
    assert first
    assert second
    assert not first & second


def test_the_metrics_come_from_the_log_through_the_metric_definitions(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    job = local_cloud.training_job(first_execution)
    log = "\n".join(executions.training_log(local_cloud.account, job["TrainingJobName"]))
    definitions = {
        definition["Name"]: definition["Regex"] for definition in job["AlgorithmSpecification"]["MetricDefinitions"]
    }
    metrics = {metric["MetricName"]: metric["Value"] for metric in job["FinalMetricDataList"]}
    assert {"train:loss", "valid:accuracy", "test:accuracy"} <= metrics.keys()
    for name, value in metrics.items():
        assert value == pytest.approx(float(re.findall(definitions[name], log)[-1]), rel=1e-6)


def test_the_summary_agrees_with_the_job_and_the_endpoint(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    summary = summarize(local_cloud.account, first_execution)
    assert summary["status"] == "SUCCEEDED"
    assert summary["hosts"] == 2
    assert summary["interruptions"] == 1
    assert summary["time_scale"] == 60
    assert summary["endpoint_name"] == "kelpie"
    assert 0.3 <= summary["test_accuracy"] <= 1
    assert summary["predictions"]
    assert summary["cost_usd_estimate"]["total"] > 0
    assert summary["cost_usd_estimate"]["prices_source"] == "unverified"
    assert summary["seconds_by_state"]["Train"] > 1


def test_the_endpoint_serves_the_model_of_this_execution(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    assert first_execution.output
    names = first_execution.output["names"]
    config = local_cloud.account.client("sagemaker").describe_endpoint_config(
        EndpointConfigName=names["endpoint_config"]
    )
    assert config["ProductionVariants"][0]["ModelName"] == names["model"]


def test_the_lock_is_free_and_the_version_approved(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    assert lock_owner(local_cloud) == []
    packages = local_cloud.account.client("sagemaker").list_model_packages(ModelPackageGroupName="kelpie")
    assert "Approved" in {p["ModelApprovalStatus"] for p in packages["ModelPackageSummaryList"]}


def test_the_front_door_answers_a_picture_with_breeds(
    local_cloud: LocalCloud, first_execution: executions.Execution, dogs_folder: Path
) -> None:
    picture = next(dogs_folder.glob("test/*/*.jpg"))
    response = local_cloud.account.client("lambda").invoke(
        FunctionName=local_cloud.outputs.classify_function,
        Payload=json.dumps({"image_base64": base64.b64encode(picture.read_bytes()).decode(), "top_k": 2}),
    )
    answer = json.load(response["Payload"])
    assert "FunctionError" not in response, answer
    breeds = {path.name for path in (dogs_folder / "test").iterdir()}
    assert len(answer["predictions"]) == 2
    assert {prediction["class"] for prediction in answer["predictions"]} <= breeds
