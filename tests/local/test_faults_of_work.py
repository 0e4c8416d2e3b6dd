"""Faults of what really works behind the APIs: jobs that end badly, endpoints that fail, models that misbehave."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import World, wait_until
from tests.local.test_training_jobs import CHECKPOINTING, SLEEPING, log_lines, output, spot, two_hosts


@pytest.fixture(autouse=True)
def nothing_pending(world: World) -> Iterator[None]:
    yield
    world.connection.clear_faults()


@pytest.fixture(scope="module")
def first(world: World) -> str:
    """An endpoint in service."""
    name = world.endpoint(world.config(world.model("first")))
    assert world.settled(name)["EndpointStatus"] == "InService"
    return name


def test_a_job_without_capacity_fails_before_it_costs_anything(world: World) -> None:
    world.connection.add_fault("training-failure", reason="CapacityError: Unable to provision requested capacity")
    job = world.train(SLEEPING, **spot(world))
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"].startswith("CapacityError: ")
    assert "BillableTimeInSeconds" not in job
    assert world.train("")["TrainingJobStatus"] == "Completed", "the next job failed too"


@pytest.mark.parametrize("ending", ["MaxWaitTimeExceeded", "MaxRuntimeExceeded", "Stopped"])
def test_a_job_ends_stopped_with_the_secondary_status_asked_for(world: World, ending: str) -> None:
    world.connection.add_fault("training-failure", stopped=ending)
    job = world.train(SLEEPING)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", ending)


def test_a_job_may_fail_after_its_first_checkpoint(world: World) -> None:
    world.connection.add_fault("training-failure", reason="InternalServerError: try again", after_checkpoints=1)
    options = spot(world)
    job = world.train(CHECKPOINTING, **options)
    assert job["FailureReason"] == "InternalServerError: try again"
    prefix = options["CheckpointConfig"]["S3Uri"].split("/", 3)[3]
    assert world.keys(prefix)
    assert "Training" in [step["Status"] for step in job["SecondaryStatusTransitions"]]


def test_one_host_is_reclaimed_without_notice_and_the_job_restarts_as_a_whole(world: World) -> None:
    world.connection.interrupt_spot(after_checkpoints=1, notice_seconds=0, host="algo-2")
    program = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('noticed', flush=True))\n"
    job = world.train(program + CHECKPOINTING, **two_hosts(**spot(world)))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]].count("Interrupted") == 1
    assert "noticed" not in log_lines(world, job)
    assert output(world, job, "algo-1")["resumed_step"] > 0


def test_a_creation_ends_failed_with_the_reason(world: World) -> None:
    world.connection.add_fault("endpoint-failure", reason="no instances left")
    described = world.settled(world.endpoint(world.config(world.model())))
    assert (described["EndpointStatus"], described["FailureReason"]) == ("Failed", "no instances left")


@pytest.mark.parametrize(("rollback_fails", "status"), [(False, "InService"), (True, "UpdateRollbackFailed")])
def test_an_update_is_rolled_back_and_the_old_model_serves(
    world: World, first: str, rollback_fails: bool, status: str
) -> None:
    before = world.described(first)["EndpointConfigName"]
    world.connection.add_fault("endpoint-failure", reason="an alarm", rollback_fails=rollback_fails)
    world.sagemaker.update_endpoint(EndpointName=first, EndpointConfigName=world.config(world.model("second")))
    wait_until(lambda: world.described(first)["EndpointStatus"] != "Updating")
    described = world.described(first)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == (status, before)
    assert described["FailureReason"] == "an alarm"
    assert world.invoke(first)["version"] == "first"


def test_a_model_misbehaves_from_the_next_deployment_on_and_only_there(world: World, first: str) -> None:
    world.connection.add_fault("model", behaviour="wrong", next_deployment=True)
    world.connection.add_fault("model", behaviour="slow", seconds=0.5, next_deployment=True)
    config = world.config(world.model("second"))
    second = world.endpoint(config)
    assert world.settled(second)["EndpointStatus"] == "InService"
    assert {fault["endpoint_config"] for fault in world.connection.faults()["pending"]} == {config}

    right, began = world.invoke(first), time.monotonic()
    wrong = world.invoke(second)
    assert time.monotonic() - began >= 0.5
    assert [row["class"] for row in right["predictions"]] == ["a", "b"]
    assert [row["class"] for row in wrong["predictions"]] == ["b", "a"]
    assert [row["probability"] for row in wrong["predictions"]] == [0.9, 0.1]

    world.connection.add_fault("model", behaviour="failing", status=503, endpoint_config=config)
    with pytest.raises(ClientError) as caught:
        world.invoke(second)
    assert caught.value.response["OriginalStatusCode"] == 503
    world.connection.clear_faults()
    assert [row["class"] for row in world.invoke(second)["predictions"]] == ["a", "b"]
    world.sagemaker.delete_endpoint(EndpointName=second)


def test_a_server_that_is_killed_comes_back_as_another_process(world: World, first: str) -> None:
    before = world.invoke(first)["pid"]
    config = world.described(first)["EndpointConfigName"]
    world.connection.add_fault("dead-server", endpoint_config=config)
    wait_until(lambda: not world.connection.faults()["pending"])
    wait_until(lambda: world.invoke(first)["pid"] != before)
