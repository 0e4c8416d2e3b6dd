"""What the permissions of stack.yaml are for: scenarios that together need every one of them.

The record of what they ask for is tests/contracts/golden/authorized_requests.json, made by test_authorized_requests.py.
A scenario is a row here: a name, and what it does in a local cloud of its own that the earlier rows have used.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from integration.harness import LOCK_KEY, eventually, lock_owner, unswept
from integration.test_faults import SET_UPS, Drill
from integration.test_starts_by_itself import arns, set_parameter

from workflow import executions

Scenario = Callable[[Drill], None]

TOO_SLOW: dict[str, Any] = {"smoke_test": {"max_latency_ms": 1}}
"""No model passes a smoke test that wants this."""
LEARNS_NOTHING: dict[str, Any] = {"training": {"learning_rate": 1e-6}, "gate": {"min_test_accuracy": 1.0}}


def ended(execution: executions.Execution, status: str, *states: str) -> None:
    """Check that an execution ended as its scenario says, by way of these states."""
    assert execution.status == status, f"{execution.error}: {execution.cause}"
    assert set(states) <= {visit.name for visit in execution.visits}, execution.statuses()


def deployment(_: Drill) -> None:
    """The stack was deployed, the custom resource has answered, the pictures are uploaded."""


def first_deployment(drill: Drill) -> None:
    drill.cloud.connection.interrupt_spot()
    execution = drill.execute("first deployment", **checkpoints_often())
    ended(execution, "SUCCEEDED", "CreateEndpoint", "SmokeTest", "PruneOldVersions")


def checkpoints_often() -> dict[str, Any]:
    return {"training": {"instance_count": 2, "checkpoint_interval_steps": 1}}


def classify(drill: Drill) -> None:
    picture = next((drill.cloud.home.parent / "pictures").glob("test/*/*.png")).read_bytes()
    payload = json.dumps({"image_base64": base64.b64encode(picture).decode()})
    answer = drill.cloud.account.client("lambda").invoke(
        FunctionName=drill.cloud.outputs.classify_function, Payload=payload
    )
    assert "FunctionError" not in answer, answer["Payload"].read()


def update(drill: Drill) -> None:
    drill.prepare("update")
    ended(drill.execute("update"), "SUCCEEDED", "UpdateEndpoint")


def another_instance_type(drill: Drill) -> None:
    drill.prepare("update")
    changes = SET_UPS["DeregisterScalableTarget"](drill)
    ended(drill.execute("update", **changes), "SUCCEEDED", "DeregisterScalableTarget", "RegisterScalableTarget")


def gate_refuses(drill: Drill) -> None:
    ended(drill.execute("update", may_resume=False, **LEARNS_NOTHING), "FAILED", "QualityGateRefused", "CleanUp")


def no_spot_capacity(drill: Drill) -> None:
    changes = SET_UPS["TrainOnDemand"](drill)
    ended(drill.execute("update", may_resume=False, **changes), "SUCCEEDED", "TrainOnDemand")


def smoke_test_fails_on_update(drill: Drill) -> None:
    drill.prepare("update")
    ended(drill.execute("update", **TOO_SLOW), "FAILED", "UpdateEndpoint", "CleanUp")


def smoke_test_fails_after_another_instance_type(drill: Drill) -> None:
    drill.prepare("update")
    serves = drill.cloud.account.client("sagemaker").describe_endpoint_config(EndpointConfigName=drill.serving())
    other = {"ml.m5.large": "ml.m5.xlarge"}.get(serves["ProductionVariants"][0]["InstanceType"], "ml.m5.large")
    execution = drill.execute("update", hosting={"instance_type": other}, **TOO_SLOW)
    ended(execution, "FAILED", "DeregisterScalableTarget", "CleanUp")


def smoke_test_fails_where_a_person_removed_the_scaling_policy(drill: Drill) -> None:
    drill.prepare("update")
    scaling = drill.cloud.account.client("application-autoscaling")
    [policy] = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    keys = ("PolicyName", "ServiceNamespace", "ResourceId", "ScalableDimension")
    scaling.delete_scaling_policy(**{key: policy[key] for key in keys})
    ended(drill.execute("update", **TOO_SLOW), "FAILED", "UpdateEndpoint", "CleanUp")


def smoke_test_fails_on_first_deployment(drill: Drill) -> None:
    drill.prepare("first deployment")
    ended(drill.execute("first deployment", **TOO_SLOW), "FAILED", "CreateEndpoint", "CleanUp")


def asked(drill: Drill, action: str) -> bool:
    """Whether somebody has asked for this permission in this scenario."""
    return action in {one["action"] for one in drill.cloud.connection.control("GET", "authorizations")["requests"]}


def lock_is_held(drill: Drill) -> None:
    """The second execution asks whether the first still runs, and is refused; the first deletes an old checkpoint."""
    first = drill.cloud.start(training={"epochs": 200, "trainable": "all"})
    eventually(lambda: asked(drill, "s3:DeleteObject"), "the first old checkpoint to go", 300)
    ended(drill.execute("update"), "FAILED", "ReadLock")
    executions.stop(drill.cloud.account, first)
    assert drill.cloud.wait(first).status == "ABORTED"
    eventually(lambda: not drill.cloud.process_ids("*/algo-*"), "the end of the training processes", 60)


def lock_is_stale(drill: Drill) -> None:
    """The owner of the lock was stopped, which no state of its own could notice."""
    drill.prepare("update")
    SET_UPS["ReadLock"](drill)
    ended(drill.execute("update"), "SUCCEEDED", "ReadLock", "TakeOverLock")


def resume(drill: Drill) -> None:
    drill.cloud.connection.fail_api("sagemaker:CreateModel", "ValidationException", count=4)
    drill.prepare("update")
    ended(drill.execute("update"), "FAILED", "CleanUp")
    changes = SET_UPS["DescribeEarlierTraining"](drill)
    ended(drill.execute("update", may_resume=False, **changes), "SUCCEEDED", "DescribeEarlierTraining")


def rollback(drill: Drill) -> None:
    drill.prepare("update")
    changes = SET_UPS["DescribeVersion"](drill)
    ended(drill.execute("update", may_resume=False, **changes), "SUCCEEDED", "DescribeVersion", "UpdateEndpoint")


def prune(drill: Drill) -> None:
    """More versions than are kept."""
    drill.prepare("update")
    for _ in range(2):
        ended(drill.execute("update"), "SUCCEEDED", "PruneOldVersions")


def schedule_fires(drill: Drill) -> None:
    arn = fired(drill)
    executions.stop(drill.cloud.account, arn)
    drill.cloud.wait(arn)


def fired(drill: Drill) -> str:
    """Move the clock to the schedule's next time, and return the ARN of the execution that starts, or ""."""
    set_parameter(drill.cloud, "ScheduleState", "ENABLED")
    known = arns(drill.cloud)
    [schedule] = drill.cloud.connection.control("GET", "clock")["schedules"]
    letters = letter_count(drill)
    drill.cloud.connection.control("POST", "clock", {"now": schedule["next"]})
    eventually(lambda: bool(arns(drill.cloud) - known) or letter_count(drill) > letters, "the schedule", 60)
    set_parameter(drill.cloud, "ScheduleState", "DISABLED")
    drill.cloud.connection.control("DELETE", "clock")
    return next(iter(arns(drill.cloud) - known), "")


def new_data(drill: Drill) -> None:
    arn = completed(drill)
    executions.stop(drill.cloud.account, arn)
    drill.cloud.wait(arn)


def completed(drill: Drill) -> str:
    """Mark a data set as complete, and return the ARN of the execution that starts, or ""."""
    events, bucket = drill.cloud.account.client("events"), drill.cloud.outputs.data_bucket
    known, letters = arns(drill.cloud), letter_count(drill)
    events.enable_rule(Name="kelpie-new-data")
    drill.cloud.account.client("s3").put_object(Bucket=bucket, Key="datasets/new/_SUCCESS", Body=b"")
    eventually(lambda: bool(arns(drill.cloud) - known) or letter_count(drill) > letters, "the rule", 60)
    events.disable_rule(Name="kelpie-new-data")
    return next(iter(arns(drill.cloud) - known), "")


def letter_count(drill: Drill) -> int:
    """How many messages are in the dead-letter queue."""
    answer = drill.cloud.account.client("sqs").get_queue_attributes(
        QueueUrl=drill.cloud.outputs.dead_letter_queue_url, AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(answer["Attributes"]["ApproximateNumberOfMessages"])


def starts_are_refused(drill: Drill) -> None:
    """Neither the schedule nor the rule may start an execution any more: both leave a letter."""
    with drill.cloud.without_action("ScheduleRole", "states:StartExecution"):
        assert fired(drill) == ""
    with drill.cloud.without_action("NewDataRole", "states:StartExecution"):
        assert completed(drill) == ""
    assert letter_count(drill) == 2


def swept(drill: Drill) -> None:
    """An execution is aborted in the middle: what it has made goes, the lock is free, somebody is told."""
    first = drill.cloud.start(training={"epochs": 200, "trainable": "all"})
    eventually(lambda: bool(drill.cloud.process_ids("*/algo-*")), "the training processes", 120)
    executions.stop(drill.cloud.account, first)
    eventually(lambda: not lock_owner(drill.cloud), "the sweep", 120)


def sweep_fails(drill: Drill) -> None:
    """The sweep may not do its work: its event ends in the dead-letter queue."""
    letters = letter_count(drill)
    with drill.cloud.without_action("SweepRole", "states:GetExecutionHistory"):
        first = drill.cloud.start(training={"epochs": 200, "trainable": "all"})
        eventually(lambda: bool(drill.cloud.process_ids("*/algo-*")), "the training processes", 120)
        executions.stop(drill.cloud.account, first)
        eventually(lambda: letter_count(drill) > letters, "the sweep's dead letter", 120)
    drill.cloud.account.client("dynamodb").delete_item(TableName=drill.cloud.outputs.lock_table, Key=LOCK_KEY)


def looked_around(drill: Drill) -> None:
    """What an earlier execution left, whose lock another one took over, is swept a quarter of an hour later."""
    drill.prepare("update")
    SET_UPS["ReadLock"](drill)
    ended(drill.execute("update"), "SUCCEEDED", "TakeOverLock")
    events = drill.cloud.account.client("events")
    events.enable_rule(Name="kelpie-look-around")
    # A rule counts from when the clock's loop sees it.
    eventually(lambda: bool(next_look(drill)), "the rule to be watched", 30)
    drill.cloud.connection.control("POST", "clock", {"now": next_look(drill)})
    eventually(lambda: not unswept(drill.cloud), "the sweep", 120)
    events.disable_rule(Name="kelpie-look-around")
    drill.cloud.connection.control("DELETE", "clock")


def next_look(drill: Drill) -> str:
    """When the rule that looks around fires next; "" for never."""
    rules = drill.cloud.connection.control("GET", "clock")["rules"]
    return next((str(rule["next"] or "") for rule in rules if rule["name"] == "kelpie-look-around"), "")


SCENARIOS: Mapping[str, Scenario] = {
    "deployment of the stack": deployment,
    "first deployment of a model, spot interrupted": first_deployment,
    "a picture classified": classify,
    "update": update,
    "update to another instance type": another_instance_type,
    "gate refuses": gate_refuses,
    "no spot capacity": no_spot_capacity,
    "smoke test fails on update": smoke_test_fails_on_update,
    "smoke test fails after another instance type": smoke_test_fails_after_another_instance_type,
    "smoke test fails where a person removed the scaling policy": (
        smoke_test_fails_where_a_person_removed_the_scaling_policy
    ),
    "lock is held; execution stopped": lock_is_held,
    "lock is stale": lock_is_stale,
    "taken over and swept later": looked_around,
    "resume": resume,
    "rollback to an earlier version": rollback,
    "old versions pruned": prune,
    "schedule": schedule_fires,
    "new data": new_data,
    "starts are refused": starts_are_refused,
    "aborted execution swept": swept,
    "sweep fails": sweep_fails,
    "smoke test fails on first deployment": smoke_test_fails_on_first_deployment,
}
"""In the order in which they run."""

REFUSED: Mapping[str, set[str]] = {
    "starts are refused": {"states:StartExecution"},
    "sweep fails": {"states:GetExecutionHistory"},
}
"""What scenarios take away on purpose."""
