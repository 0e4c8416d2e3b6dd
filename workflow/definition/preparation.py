"""Chapters 1 to 3: what is to be done, one execution at a time, a new model or an earlier one."""

from __future__ import annotations

from typing import Any

from workflow import names
from workflow.config import Config
from workflow.definition.chapter import Chapter
from workflow.definition.hosting import host
from workflow.sdk import (
    Catch,
    Chain,
    Choice,
    ChoiceRule,
    DynamoDBGetItemStep,
    DynamoDBUpdateItemStep,
    Expr,
    Pass,
    State,
    Wait,
)
from workflow.training_job import (
    START_AND_END_SECONDS,
)
from workflow.words import failure, known, lambda_step, one_of, retry, sdk_step, text

LOCK_LAPS = 72
"""How often an execution that may wait for the lock looks whether it is free."""

LOCK_LAP_SECONDS = 300
"""With the laps: 6 hours, which is longer than an execution with the default limits may take."""


# 1. What is to be done?


def settle(config: Config) -> Chapter:
    keep_input = Pass(
        "KeepInput",
        comment="Puts the input aside, whatever it is, so that failures have a place to be written to",
        parameters={"input": Expr("$$.Execution.Input"), "failed": {}, "clean_up_laps": {"number": 0}},
    )
    resolve_input = lambda_step(
        "ResolveInput",
        "ResolveInput",
        {"input": Expr("$.input"), "defaults": config.defaults()},
        seconds=60,
        comment="Checks every key of the input and merges it into the defaults",
        result_selector={
            "settings": Expr("$.Payload"),
            "attempt": {"number": 0},
            "failed": {},
            "warnings": {},
            "earlier_laps": {"number": 0},
            "clean_up_laps": {"number": 0},
        },
    )
    name = names.of_run(config.project.name)
    name_resources = Pass(
        "NameResources",
        comment="Names made from the execution ARN: legal and unique, whatever the execution is called",
        parameters={
            "run": Expr(names.RUN),
            "training_job": Expr(name),
            "model": Expr(name),
            "endpoint_config": Expr(name),
            "endpoint": config.project.name,
            "output_s3_uri": Expr(names.output_s3_uri()),
            "checkpoint_s3_uri": Expr(names.checkpoint_s3_uri()),
        },
        result_path="$.names",
    )
    run, wait = "$.settings.training.max_runtime_seconds", "$.settings.training.max_spot_wait_seconds"
    limit_training = Pass(
        "LimitTraining",
        comment="How long training may take, with and without waiting for spot capacity",
        parameters={
            "max_wait_seconds": Expr(f"States.MathAdd({run}, {wait})"),
            "spot_seconds": Expr(f"States.MathAdd(States.MathAdd({run}, {wait}), {START_AND_END_SECONDS})"),
            "on_demand_seconds": Expr(f"States.MathAdd({run}, {START_AND_END_SECONDS})"),
        },
        result_path="$.limits",
    )
    Chain([keep_input, resolve_input, name_resources, limit_training])
    return Chapter(keep_input, [limit_training.next])


# 2. One execution at a time


def lock(config: Config) -> Chapter:
    project = config.project.name
    take = "SET #owner = :me, acquired_at = :now"

    def write(
        state_id: str, condition: str, comment: str, update: str = take, **values: dict[str, Any]
    ) -> DynamoDBUpdateItemStep:
        return DynamoDBUpdateItemStep(
            state_id,
            parameters={
                "TableName": "${LockTable}",
                "Key": {"pk": {"S": project}},
                "UpdateExpression": update,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": {
                    ":me": {"S": Expr("$$.Execution.Id")},
                    ":now": {"S": Expr("$$.State.EnteredTime")},
                    **{f":{name}": value for name, value in values.items()},
                },
            },
            timeout_seconds=60,
            retry=retry("dynamodb"),
            result_path=None,
            comment=comment,
        )

    free = "attribute_not_exists(#owner) OR #owner = :me"
    acquire = write("AcquireLock", free, "Takes the lock of the project, when it is free or ours already")
    read = DynamoDBGetItemStep(
        "ReadLock",
        parameters={"TableName": "${LockTable}", "Key": {"pk": {"S": project}}, "ConsistentRead": True},
        timeout_seconds=60,
        retry=retry("dynamodb"),
        result_path="$.lock",
        comment="Who holds it?",
    )
    still_held = Choice("LockStillHeld?", comment="It may have been released a moment ago")
    acquire_freed = write("AcquireFreedLock", free, "Takes the lock that was released a moment ago")
    describe_owner = sdk_step(
        "DescribeLockOwner",
        "sfn:describeExecution",
        {"ExecutionArn": Expr("$.lock.Item.owner.S")},
        result_selector={"status": Expr("$.Status")},
        result_path="$.lock_owner",
        comment="Does its owner still run? One that was aborted or timed out never released it",
    )
    owner_running = Choice("LockOwnerRunning?", comment="Only an execution that still runs may keep the lock")
    # One write, so that nothing is lost: what that execution left behind is swept when the lock is free.
    take_over = write(
        "TakeOverLock",
        "#owner = :stale",
        "Takes the lock from an execution that has ended, and remembers which",
        f"{take} ADD unswept :unswept",
        stale={"S": Expr("$.lock.Item.owner.S")},
        unswept={"SS": Expr("States.Array($.lock.Item.owner.S)")},
    )
    held = failure(
        "LockHeld",
        "AcquireLock",
        "LockHeld",
        text(f"Execution {{}} of project {project} is running.", "$.lock.Item.owner.S"),
        "Another execution runs: this one gives way and names it",
    )
    is_held = {"error_equals": ["DynamoDB.ConditionalCheckFailedException"], "result_path": "$.lock"}
    give_way: State = held
    if config.lock.when_held == "wait":
        start_waiting, give_way = _wait_for_lock(project, read, held)
        acquire.add_catch(Catch(start_waiting, **is_held))
        # Someone else was faster.
        acquire_freed.add_catch(Catch(give_way, **is_held))
        take_over.add_catch(Catch(give_way, **is_held))
    else:
        acquire.add_catch(Catch(read, **is_held))
    read.next(still_held)
    still_held.add_choice(ChoiceRule.IsPresent("$.lock.Item.owner.S", True), describe_owner)
    still_held.default_choice(acquire_freed)
    # Step Functions forgets an execution 90 days after its end.
    gone = ["Sfn.ExecutionDoesNotExistException"]
    describe_owner.add_catch(Catch(take_over, error_equals=gone, result_path="$.lock_owner"))
    describe_owner.next(owner_running)
    owner_running.add_choice(one_of("$.lock_owner.status", ("RUNNING", "PENDING_REDRIVE")), give_way)
    owner_running.default_choice(take_over)
    return Chapter(acquire, [acquire.next, acquire_freed.next, take_over.next])


def _wait_for_lock(project: str, read: State, held: State) -> tuple[State, State]:
    """Look again and again who holds the lock, a bounded number of times.

    Returns the state before the first look, and the one to go to whenever somebody else holds it.
    """
    start = Pass("StartWaitingForLock", result={"number": 0}, result_path="$.lock_laps")
    count_lap = Pass(
        "CountLockLap",
        parameters={"number": Expr("States.MathAdd($.lock_laps.number, 1)")},
        result_path="$.lock_laps",
    )
    again = Choice("WaitForLockAgain?", comment="Another execution has its turn first")
    wait = Wait("WaitForLock", seconds=LOCK_LAP_SECONDS)
    contested = failure(
        "LockContested",
        "AcquireLock",
        "LockHeld",
        f"Other executions of project {project} were faster each time.",
        "There is no single one to name",
    )
    start.next(read)
    Chain([count_lap, again])
    again.add_choice(ChoiceRule.NumericLessThan("$.lock_laps.number", LOCK_LAPS), wait)
    again.add_choice(ChoiceRule.IsPresent("$.lock.Item.owner.S", True), held)
    again.default_choice(contested)
    wait.next(read)
    return start, count_lap


# 3. Make a new model, or bring an earlier one back?


def bring_back(_config: Config) -> Chapter:
    """A rollback takes a version that exists, and goes on where a new one would be hosted: by the same safe path."""
    arn = "$.settings.rollback.model_package_arn"
    is_rollback = Choice("RollBack?", comment="Make a new model, or bring an earlier one back?")
    describe = sdk_step(
        "DescribeVersion",
        "sagemaker:describeModelPackage",
        {"ModelPackageName": Expr(arn)},
        result_path="$.version",
        comment="The version that shall serve again",
    )
    approved = Choice("VersionApproved?", comment="Only what has served, or could have, is brought back")
    not_approved = failure(
        "VersionNotApproved",
        "DescribeVersion",
        "VersionNotApproved",
        text(
            "Version {} is {}: only an Approved one that an execution of this project registered can be brought back.",
            arn,
            "$.version.ModelApprovalStatus",
        ),
        "It never passed, was taken back, or is not ours",
    )
    take_container = Pass(
        "TakeContainer",
        parameters={
            "container": Expr("States.ArrayGetItem($.version.InferenceSpecification.Containers, 0)"),
            "metadata": Expr("$.version.CustomerMetadataProperties"),
            "ModelPackageArn": Expr("$.version.ModelPackageArn"),
        },
        result_path="$.version",
        comment="There is only one",
    )
    take_artifacts = Pass(
        "TakeArtifacts",
        parameters={
            "model_s3_uri": Expr("$.version.container.ModelDataUrl"),
            "evidence_s3_uri": Expr("$.version.metadata.evidence_s3_uri"),
            "serving_image": Expr("$.version.container.Image"),
            "program": Expr("$.version.container.Environment.SAGEMAKER_PROGRAM"),
        },
        result_path="$.artifacts",
        comment="The archive, the image, the program and the known pictures of that version",
    )
    take_verdict = Pass(
        "TakeVerdict",
        parameters={
            "passed": True,
            "reason": text("run {} passed the quality gate", "$.version.metadata.run"),
            "test_accuracy": Expr("States.StringToJson($.version.metadata.test_accuracy)"),
            "champion_test_accuracy": None,
            "comparable": False,
        },
        result_path="$.gate",
        comment="It was judged when it was new",
    )
    take_version = Pass(
        "TakeVersion",
        parameters={"ModelPackageArn": Expr("$.version.ModelPackageArn")},
        result_path="$.package",
        comment="No new version: the same model serves again",
    )
    status, group = "$.version.ModelApprovalStatus", "$.version.ModelPackageGroupName"
    metadata = "$.version.CustomerMetadataProperties"
    usable = [
        known(status, ChoiceRule.StringEquals(status, "Approved")),
        known(group, ChoiceRule.StringEquals(group, "${ModelPackageGroup}")),
        *[ChoiceRule.IsPresent(f"{metadata}.{key}", True) for key in ("run", "evidence_s3_uri", "test_accuracy")],
    ]
    is_rollback.add_choice(ChoiceRule.Not(ChoiceRule.StringEquals(arn, "")), describe)
    describe.next(approved)
    approved.add_choice(ChoiceRule.And(usable), take_container)
    approved.default_choice(not_approved)
    Chain([take_container, take_artifacts, take_verdict, take_version])
    return Chapter(is_rollback, [is_rollback.default_choice], [(host, take_version.next)])
