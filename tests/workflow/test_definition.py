"""The state machine as data: where failures lead, loops, time, history, and names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow import definition, names
from workflow.config import Config
from workflow.execution_input import execution_input_schema

ASL = definition.build(Config())
STATES: dict[str, dict[str, Any]] = ASL["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}

AFTER_PROMOTION = {
    "ApproveVersion": "KeepChampion",
    "KeepChampion": "PruneOldVersions",
    "PruneOldVersions": "ReleaseLock",
    "ReleaseLock": "NotifySuccess",
    "NotifySuccess": "Succeeded",
}
ON_THE_WAY_BACK = {
    "CleanUp": "CleanUpFailed",
    "ReleaseLockAfterFailure": "NotifyFailure",
    "NotifyFailure": "ExecutionFailed",
}
LOOKED_AT_BY_A_CHOICE = {"DescribeEndpoint": "EndpointExists?", "DescribeSpotTraining": "SpotTrainingCompleted?"}
"""A missing endpoint is an error of DescribeEndpoint that only its text tells from others; and a training job that
cannot be described changes nothing about why the one before failed."""
FALL_BACK = {"Train": "DescribeSpotTraining"}
TRAINS_AFRESH = {"DescribeEarlierTraining": "UseSpot?"}
"""What an earlier execution learned only saves time: without it, training begins afresh."""

# Failures that do not go to CleanUp, all of them, by the name of the state.
EXCEPTIONS = AFTER_PROMOTION | ON_THE_WAY_BACK | LOOKED_AT_BY_A_CHOICE | FALL_BACK | TRAINS_AFRESH

RAW_TASKS = {
    "DescribeLockOwner": "2.3.0 has no step for DescribeExecution",
    "DescribeVersion": "2.3.0 has no step for the model registry",
    "DescribeEarlierTraining": "2.3.0 has no step that reads",
    "RegisterVersion": "2.3.0 has no step for the model registry",
    "DescribeSpotTraining": "2.3.0 has no step that reads",
    "DescribeEndpoint": "2.3.0 has no step that reads",
    "DescribeDeployment": "2.3.0 has no step that reads",
    "DescribeServingConfig": "2.3.0 has no step that reads",
    "DescribeScalableTarget": "2.3.0 has no step for Application Auto Scaling",
    "DescribeScalingPolicies": "2.3.0 has no step for Application Auto Scaling",
    "DeregisterScalableTarget": "2.3.0 has no step for Application Auto Scaling",
    "UpdateEndpoint": "EndpointStep(update=True) cannot hold DeploymentConfig, nor can the optimised integration",
    "RegisterScalableTarget": "2.3.0 has no step for Application Auto Scaling",
    "PutScalingPolicy": "2.3.0 has no step for Application Auto Scaling",
    "ApproveVersion": "2.3.0 has no step for the model registry",
    "KeepChampion": "2.3.0 has no step for S3",
}


def catch_all(state: dict[str, Any]) -> dict[str, Any]:
    return next(catch for catch in state["Catch"] if catch["ErrorEquals"] == ["States.ALL"])


# Every failure has a way out


@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_fails_leads_to_clean_up_or_is_a_listed_exception(name: str) -> None:
    caught = catch_all(TASKS[name])
    assert caught["Next"] == EXCEPTIONS.get(name, "CleanUp")
    assert TASKS[name]["Catch"][-1] is caught


@pytest.mark.parametrize("name", sorted(set(TASKS) - set(LOOKED_AT_BY_A_CHOICE)))
def test_a_failure_is_written_under_the_name_of_its_state(name: str) -> None:
    place = "warnings" if name in AFTER_PROMOTION | TRAINS_AFRESH else "failed"
    assert catch_all(TASKS[name])["ResultPath"] == f"$.{place}.{name}"


def test_nothing_that_fails_after_promotion_leads_back() -> None:
    reached = reachable("RecordServing", forward_only_on_success=True)
    assert "PruneOldVersions" in reached
    for name in reached - {"RecordServing"}:
        assert "CleanUp" not in set(successors(STATES[name]))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_timeout(name: str) -> None:
    assert "TimeoutSeconds" in TASKS[name] or "TimeoutSecondsPath" in TASKS[name]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_repeats_only_what_throttling_or_the_lambda_service_may_raise(name: str) -> None:
    allowed = re.compile(
        r"(\w+\.)?(Throttl\w+|ProvisionedThroughputExceededException)|SageMaker\.(Amazon)?SageMakerException"
        r"|ApplicationAutoScaling\.(ApplicationAutoScaling|ConcurrentUpdate|InternalService)Exception"
        r"|S3\.S3Exception|Sfn\.SfnException"
        r"|Lambda\.(AWSLambda|SdkClient|Service|TooManyRequests)Exception"
    )
    errors = [error for retry in TASKS[name]["Retry"] for error in retry["ErrorEquals"]]
    # CleanUp may be repeated, whatever happened to it.
    expected = ["States.ALL"] if name == "CleanUp" else []
    assert [error for error in errors if not allowed.fullmatch(error)] == expected


def test_the_first_look_at_the_endpoint_repeats_the_error_that_may_mean_there_is_none_only_for_seconds() -> None:
    [retry] = TASKS["DescribeEndpoint"]["Retry"]
    assert {"SageMaker.SageMakerException", "ThrottlingException"} <= set(retry["ErrorEquals"])
    waits = [retry["IntervalSeconds"] * retry["BackoffRate"] ** n for n in range(retry["MaxAttempts"])]
    assert sum(waits) <= 15


def test_raw_tasks_are_only_those_that_the_sdk_has_no_step_for() -> None:
    raw = {name for name, task in TASKS.items() if ":aws-sdk:" in task["Resource"]}
    assert raw == set(RAW_TASKS)


def test_every_integration_is_named_for_any_partition() -> None:
    assert all(task["Resource"].startswith("arn:${Partition}:states:::") for task in TASKS.values())


# Loops, time and history are bounded


def successors(state: dict[str, Any]) -> Iterator[str]:
    if "Next" in state:
        yield state["Next"]
    for choice in state.get("Choices", []):
        yield choice["Next"]
    if "Default" in state:
        yield state["Default"]
    for caught in state.get("Catch", []):
        yield caught["Next"]


def reachable(start: str, forward_only_on_success: bool = False) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            state = STATES[name]
            without = {**state, "Catch": []} if forward_only_on_success else state
            waiting.extend(successors(without))
    return found


def loops() -> dict[str, frozenset[str]]:
    """Each state's loop: the states that it reaches and that reach it (itself alone when it is in no loop)."""
    reach = {name: {other for after in successors(STATES[name]) for other in reachable(after)} for name in STATES}
    return {name: frozenset({other for other in reach[name] if name in reach[other]} | {name}) for name in STATES}


def laps(loop: frozenset[str]) -> int:
    """How often a loop is run through at most: what its counter is compared with, and the first time."""
    if len(loop) == 1:
        return 1
    bounds = [
        int(bound) for name in loop for bound in re.findall(r'"NumericLessThan": (\d+)', json.dumps(STATES[name]))
    ]
    assert bounds, f"the loop {sorted(loop)} has no bound"
    return max(bounds) + 1


def heaviest_path(weight: dict[str, float]) -> float:
    loop_of = loops()
    known: dict[frozenset[str], float] = {}

    def from_loop(loop: frozenset[str]) -> float:
        if loop not in known:
            after = {loop_of[other] for name in loop for other in successors(STATES[name])} - {loop}
            inside = sum(weight[name] for name in loop) * laps(loop)
            known[loop] = inside + max((from_loop(other) for other in after), default=0.0)
        return known[loop]

    return from_loop(loop_of[ASL["StartAt"]])


def attempts(state: dict[str, Any]) -> int:
    return 1 + sum(retry["MaxAttempts"] for retry in state.get("Retry", []))


def longest_seconds(name: str) -> float:
    state = STATES[name]
    if state["Type"] == "Wait":
        return float(state["Seconds"])
    if state["Type"] != "Task":
        return 1.0
    longest_training = execution_input_schema()["properties"]["training"]["properties"]
    run = longest_training["max_runtime_seconds"]["maximum"]
    wait = longest_training["max_spot_wait_seconds"]["maximum"]
    limits = {"$.limits.spot_seconds": run + wait + 3600, "$.limits.on_demand_seconds": run + 3600}
    timeout = state.get("TimeoutSeconds") or limits[state["TimeoutSecondsPath"]]
    pauses = sum(
        retry.get("IntervalSeconds", 1) * retry.get("BackoffRate", 2.0) ** turn
        for retry in state.get("Retry", [])
        for turn in range(retry["MaxAttempts"])
    )
    return float(attempts(state) * timeout + pauses)


def test_every_loop_is_bounded() -> None:
    assert {len(loop) for loop in loops().values()} > {1}
    assert all(laps(loop) > 0 for loop in loops().values())


def test_the_machine_may_run_longer_than_its_longest_path() -> None:
    longest = heaviest_path({name: longest_seconds(name) for name in STATES})
    assert 10 * 86_400 < longest < ASL["TimeoutSeconds"]


def test_the_longest_history_stays_below_20000_events() -> None:
    # Entered and exited; for each attempt of a Task: scheduled, started, submitted, and how it ended.
    events = {name: 2.0 + (4.0 * attempts(state) if state["Type"] == "Task" else 0.0) for name, state in STATES.items()}
    assert heaviest_path(events) < 20_000


def test_loops_time_and_history_are_bounded_also_where_executions_wait_for_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = definition.build(Config.model_validate({"lock": {"when_held": "wait"}}))["States"]
    assert set(waiting) - set(STATES) >= {"WaitForLock"}
    monkeypatch.setitem(globals(), "STATES", waiting)
    test_every_loop_is_bounded()
    test_the_machine_may_run_longer_than_its_longest_path()
    test_the_longest_history_stays_below_20000_events()


# Names


project_names = st.from_regex(r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?", fullmatch=True)
execution_names = st.one_of(
    st.uuids().map(str),
    st.tuples(st.uuids(), st.uuids()).map(lambda pair: f"{pair[0]}_{pair[1]}"),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=80),
)


@settings(deadline=None)
@given(project=project_names, execution=execution_names, attempt=st.integers(0, names.MAX_ATTEMPT))
def test_names_are_legal_however_the_execution_is_called(project: str, execution: str, attempt: int) -> None:
    arn = f"arn:aws:states:us-east-1:123456789012:execution:{project}:{execution}"
    assert names.of_run(project) == f"States.Format('{project}-{{}}', States.Hash($$.Execution.Id, 'MD5'))"
    run = hashlib.md5(arn.encode(), usedforsecurity=False).hexdigest()
    for name in (project, f"{project}-{run}", f"{project}-{run}-{attempt}"):
        assert names.is_sagemaker_name(name)


def test_the_longest_names_fit() -> None:
    longest = names.longest_training_job_name("p" * names.MAX_PROJECT_LENGTH)
    assert names.is_sagemaker_name(longest)
    assert not names.is_sagemaker_name(longest + "-12345")
