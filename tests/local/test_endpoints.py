"""Endpoints of the local cloud: real server processes behind SageMaker's API."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import World, archive, wait_until


@pytest.fixture(scope="module")
def endpoint(world: World) -> str:
    """An endpoint with two instances."""
    name = world.endpoint(world.config(world.model(), count=2))
    assert world.settled(name)["EndpointStatus"] == "InService"
    return name


def error_of(raised: pytest.ExceptionInfo[ClientError]) -> dict[str, str]:
    return raised.value.response["Error"]


def test_raw_bytes_reach_the_model_and_its_answer_comes_back(world: World, endpoint: str) -> None:
    picture = bytes(range(256)) * 10
    answer = world.invoke(endpoint, picture, ContentType="image/jpeg", CustomAttributes="top_k=3")
    assert answer["bytes"] == len(picture)
    assert (answer["content_type"], answer["attributes"]) == ("image/jpeg", "top_k=3")
    assert answer["key_id"].startswith("ASIA")


def test_requests_at_the_same_time_go_to_different_servers(world: World, endpoint: str) -> None:
    pids: set[int] = set()
    threads = [threading.Thread(target=lambda: pids.add(world.invoke(endpoint, b"sleep 0.5")["pid"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 2


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_of_the_container_is_a_model_error_with_its_status(world: World, endpoint: str, status: int) -> None:
    with pytest.raises(ClientError) as raised:
        world.invoke(endpoint, f"status {status}".encode())
    assert error_of(raised)["Code"] == "ModelError"
    assert raised.value.response["OriginalStatusCode"] == status
    assert "as you wish" in raised.value.response["OriginalMessage"]
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_an_endpoint_that_is_not_there_is_a_validation_error(world: World) -> None:
    with pytest.raises(ClientError, match="not found") as raised:
        world.invoke("no-such-endpoint")
    assert error_of(raised)["Code"] == "ValidationError"


def test_a_server_that_dies_is_replaced_and_no_request_fails(world: World, endpoint: str) -> None:
    before = {world.invoke(endpoint)["pid"] for _ in range(20)}
    victim = before.pop()
    os.kill(victim, signal.SIGKILL)
    answers = [world.invoke(endpoint)["pid"] for _ in range(20)]
    assert victim not in answers

    def two_again() -> bool:
        return len({world.invoke(endpoint)["pid"] for _ in range(10)}) == 2

    wait_until(two_again)


def test_a_second_update_while_one_is_under_way_is_refused(world: World) -> None:
    name = world.endpoint(world.config(world.model()))
    other = world.config(world.model())
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        world.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=other)
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        world.sagemaker.delete_endpoint(EndpointName=name)
    world.settled(name)
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_an_update_swaps_the_model_while_no_request_fails_and_keeps_the_count_if_asked(world: World) -> None:
    name = world.endpoint(world.config(world.model("one")))
    world.settled(name)
    world.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}],
    )
    assert world.described(name)["EndpointStatus"] == "Updating"
    assert world.settled(name)["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    failures: list[Exception] = []
    versions: list[str] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                versions.append(world.invoke(name, b"sleep 0.02")["version"])
            except Exception as error:
                failures.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    config = world.config(world.model("two"), count=1)
    world.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config, RetainAllVariantProperties=True)
    described = world.settled(name)
    time.sleep(0.2)
    done.set()
    caller.join()
    assert not failures
    assert (versions[0], versions[-1]) == ("one", "two")
    assert described["EndpointConfigName"] == config
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 2

    def servers() -> list[str]:
        return [each for each in world.process_names() if each.startswith("AllTraffic/")]

    running = servers()
    world.sagemaker.delete_endpoint(EndpointName=name)
    wait_until(lambda: gone(world, name))
    assert len(servers()) == len(running) - 2


def test_an_update_to_a_broken_model_leaves_the_old_one_in_service(world: World) -> None:
    config = world.config(world.model("one"))
    name = world.endpoint(config)
    world.settled(name)
    broken = world.config(world.model("broken"))
    world.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=broken)
    described = world.settled(name)
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] == config
    assert "did not pass the ping health check" in described["FailureReason"]
    assert world.invoke(name)["version"] == "one"
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_a_role_without_getobject_fails_the_endpoint_with_accessdenied(world: World) -> None:
    model = world.model(role=world.make_role(deny="s3:GetObject"))
    described = world.settled(world.endpoint(world.config(model)))
    assert described["EndpointStatus"] == "Failed"
    assert "AccessDenied" in described["FailureReason"]


def test_an_archive_that_leaves_its_folder_fails_the_endpoint(world: World) -> None:
    uri = world.put(f"hostile-{uuid.uuid4().hex}/model.tar.gz", archive({"../../escaped.txt": "out"}))
    described = world.settled(world.endpoint(world.config(world.model(uri=uri))))
    assert described["EndpointStatus"] == "Failed"
    assert "OutsideDestinationError" in described["FailureReason"]


def gone(world: World, name: str) -> bool:
    try:
        world.described(name)
    except ClientError as error:
        return "Could not find endpoint" in str(error)
    return False


def test_names_that_exist_are_refused(world: World, endpoint: str) -> None:
    config = world.described(endpoint)["EndpointConfigName"]
    with pytest.raises(ClientError, match="already existing endpoint"):
        world.sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=config)
    variants = world.sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
    with pytest.raises(ClientError, match="already existing endpoint configuration"):
        world.sagemaker.create_endpoint_config(EndpointConfigName=config, ProductionVariants=variants)


def test_servers_write_to_the_endpoint_s_log_group_and_counts_become_metrics(world: World, endpoint: str) -> None:
    def logged() -> bool:
        events = world.client("logs").filter_log_events(logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}")
        return any(event["message"].startswith("model server one") for event in events["events"])

    wait_until(logged)
    world.invoke(endpoint)

    def counted() -> bool:
        listed = world.client("cloudwatch").list_metrics(
            Namespace="AWS/SageMaker",
            Dimensions=[
                {"Name": "EndpointName", "Value": endpoint},
                {"Name": "VariantName", "Value": "AllTraffic"},
            ],
        )["Metrics"]
        return {
            "Invocations",
            "InvocationsPerInstance",
            "Invocation4XXErrors",
            "Invocation5XXErrors",
            "ModelLatency",
        } <= {metric["MetricName"] for metric in listed}

    wait_until(counted)
