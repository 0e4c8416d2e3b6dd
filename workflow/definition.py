"""The state machine.

Read it from top to bottom: first one function for each chapter of the story, with its states in the order in which
an execution meets them, then `build`, which puts the chapters together.

What the state data holds, and the state that puts it there:
    settings    ResolveInput        the input merged into the defaults; every later state reads its settings here
    names       NameResources       what this execution calls the things that it creates
    limits      LimitTraining       seconds that training may take
    attempt     ResolveInput        the number of the training job; NextAttempt counts it up
    version     DescribeVersion     the registered version that a rollback brings back
    data        CheckData           what lies in the folder of pictures
    champion    ReadServing         what serves before this execution
    fingerprint FingerprintTraining what training depends on, and what its model is compared with
    earlier     DescribeEarlierTraining  the training job to go on from
    train       Train               what DescribeTrainingJob answers
    artifacts   NameArtifacts       where the model and its evidence lie, and the image and program that serve it
    gate        QualityGate         its verdict
    package     RegisterVersion     the registered version
    endpoint    DescribeEndpoint    the endpoint before this execution touches it, and whether it `exists`
    serving     TakeFirstVariant    its production variant, and the same of its config
    scaling     DescribeScalableTarget, DescribeScalingPolicies: how it scales, for CleanUp to put back
    deployment  DescribeDeployment  the endpoint while and after it changes
    smoke       SmokeTest           what the endpoint answered
    failed      any Task            Error and Cause, by the name of the state that failed
    warnings    after promotion     the same, for failures that no longer matter to the result; NoteFallBack too
    clean_up    CleanUp             what went wrong in one sentence, and what was undone

`${Name}` stands for a value that belongs to an account; the stack puts it in (see `SUBSTITUTIONS`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from workflow import names
from workflow.config import Config
from workflow.instances import has_local_storage
from workflow.sdk import (
    Catch,
    Chain,
    Choice,
    ChoiceRule,
    DynamoDBDeleteItemStep,
    DynamoDBGetItemStep,
    DynamoDBPutItemStep,
    EndpointConfigStep,
    EndpointStep,
    Expr,
    Fail,
    Graph,
    ModelStep,
    Pass,
    Retry,
    SnsPublishStep,
    State,
    Succeed,
    Wait,
    guarded,
)
from workflow.training_job import (
    CHAMPION,
    FINGERPRINT,
    START_AND_END_SECONDS,
    security_groups,
    subnets,
    trained_model,
    training_fingerprint,
    training_step,
)
from workflow.words import (
    THROTTLED,
    failure,
    known,
    lambda_step,
    one_of,
    payload_of,
    retry,
    sdk_step,
    text,
)

FUNCTIONS = ("ResolveInput", "CheckData", "QualityGate", "SmokeTest", "PruneVersions", "CleanUp")

SUBSTITUTIONS = frozenset(
    {
        "AccountId",
        "ArtifactBucket",
        "CodeChannelUri",
        "DataBucket",
        "EndpointErrorsAlarm",
        "EndpointLatencyAlarm",
        "HostingRoleArn",
        "KmsKeyArn",
        "LockTable",
        "ModelPackageGroup",
        "NotificationTopicArn",
        "Partition",
        "PrivateSubnetA",
        "PrivateSubnetB",
        "Region",
        "ServingImage",
        "TrainingImage",
        "TrainingRoleArn",
        "TrainingSecurityGroup",
        "WeightsChannelUri",
        "WheelsChannelUri",
        *(f"{name}FunctionArn" for name in FUNCTIONS),
    }
)
"""What the stack puts into the definition."""

ENDPOINT_LAPS = 240
"""How often the endpoint is looked at: 2 hours. A broken container can keep an endpoint Creating for an hour.

Source: issue 3432 of aws/amazon-sagemaker-examples, read 2026-11.
"""

EARLIER_LAPS = 60
"""How often an earlier training job is looked at until it has ended: half an hour. One that was stopped has two minutes
for its last checkpoint, and then uploads what it made."""

BUSY_LAPS = 60
"""How often the endpoint is looked at while it changes before it is touched, by automatic scaling say: 30 minutes."""

CLEAN_UP_LAPS = 120
CLEAN_UP_LAP_SECONDS = 60
"""2 hours as well; fewer laps, because each takes more events of the history, which AWS ends at 25,000."""

LOCK_LAPS = 72
"""How often an execution that may wait for the lock looks whether it is free."""

LOCK_LAP_SECONDS = 300
"""With the laps: 6 hours, which is longer than an execution with the default limits may take."""

LAP_SECONDS = 30

TIMEOUT_SECONDS = 90 * 86_400
"""Longer than every path through the machine can take; a test adds them up. An execution that is timed out skips
every Catch, so this is only the very last resort."""

BAKE_SECONDS = 300
"""Time for which the alarms watch the new instances before the old ones go."""

CHANGING = ("Creating", "Updating", "SystemUpdating", "RollingBack")


class Chapter(NamedTuple):
    """Some states of the story: where it begins, and the doors through which it goes on to the next chapter.

    A side door leads to a later chapter, past what is done already.
    """

    first: State
    doors: Sequence[Callable[[State], Any]] = ()
    side_doors: Sequence[tuple[Callable[[Config], Chapter], Callable[[State], Any]]] = ()


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
    item = {
        "pk": {"S": project},
        "owner": {"S": Expr("$$.Execution.Id")},
        "acquired_at": {"S": Expr("$$.State.EnteredTime")},
    }

    def write(state_id: str, condition: str, values: dict[str, Any], comment: str) -> DynamoDBPutItemStep:
        return DynamoDBPutItemStep(
            state_id,
            parameters={
                "TableName": "${LockTable}",
                "Item": item,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {"#owner": "owner"},
                "ExpressionAttributeValues": values,
            },
            timeout_seconds=60,
            retry=retry("dynamodb"),
            result_path=None,
            comment=comment,
        )

    free, me = "attribute_not_exists(pk) OR #owner = :me", {":me": {"S": Expr("$$.Execution.Id")}}
    acquire = write("AcquireLock", free, me, "Takes the lock of the project, when it is free or ours already")
    read = DynamoDBGetItemStep(
        "ReadLock",
        parameters={"TableName": "${LockTable}", "Key": {"pk": {"S": project}}, "ConsistentRead": True},
        timeout_seconds=60,
        retry=retry("dynamodb"),
        result_path="$.lock",
        comment="Who holds it?",
    )
    still_held = Choice("LockStillHeld?", comment="It may have been released a moment ago")
    acquire_freed = write("AcquireFreedLock", free, me, "Takes the lock that was released a moment ago")
    describe_owner = sdk_step(
        "DescribeLockOwner",
        "sfn:describeExecution",
        {"ExecutionArn": Expr("$.lock.Item.owner.S")},
        result_selector={"status": Expr("$.Status")},
        result_path="$.lock_owner",
        comment="Does its owner still run? One that was aborted or timed out never released it",
    )
    owner_running = Choice("LockOwnerRunning?", comment="Only an execution that still runs may keep the lock")
    stale = {":stale": {"S": Expr("$.lock.Item.owner.S")}}
    take_over = write("TakeOverLock", "#owner = :stale", stale, "Takes the lock from an execution that has ended")
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


# 4. Is there anything to learn from?


def check(_config: Config) -> Chapter:
    check_data = lambda_step(
        "CheckData",
        "CheckData",
        {"s3_uri": Expr("$.settings.data.s3_uri")},
        seconds=360,
        comment="Lists the pictures: classes, counts, layout, and what is plainly broken",
        result_selector=payload_of(
            "s3_uri", "layout", "class_count", "image_count", "total_bytes", "manifest_sha256", "warnings"
        ),
        result_path="$.data",
    )
    return Chapter(check_data, [check_data.next])


# 5. Has an earlier execution learned it already?


def resume(config: Config) -> Chapter:
    """Go on from an earlier training job, when what it learned is what this execution would learn.

    Two fingerprints decide, which every training job carries: one of all that makes the model what it is, and one of
    the champion that it was compared with. Both the same: the job is as good as a new one. Only the first: training
    goes on from the checkpoints, whose last one is the trained model, and evaluates again. Otherwise nothing is taken:
    what was learned from other data, code or settings must not be mixed in.
    """
    read_serving = DynamoDBGetItemStep(
        "ReadServing",
        parameters={
            "TableName": "${LockTable}",
            "Key": {"pk": {"S": names.serving_pointer(config.project.name)}},
            "ConsistentRead": True,
        },
        timeout_seconds=60,
        retry=retry("dynamodb"),
        result_path="$.champion",
        comment="The model that a new one is compared with",
    )
    has_champion = Choice("ChampionKnown?", comment="The first execution finds none")
    no_champion = Pass("NoChampionYet", result={"Item": {"model_package_arn": {"S": "none"}}}, result_path="$.champion")
    fingerprint = Pass(
        "FingerprintTraining",
        parameters={"training": Expr(training_fingerprint()), "champion": Expr("$.champion.Item.model_package_arn.S")},
        result_path="$.fingerprint",
        comment="Equal data, code, weights, image and settings have equal fingerprints",
    )
    wanted = Choice("ResumeTraining?")
    describe = sdk_step(
        "DescribeEarlierTraining",
        "sagemaker:describeTrainingJob",
        {"TrainingJobName": Expr("$.settings.resume.training_job")},
        result_path="$.earlier",
        comment="What has the earlier execution trained?",
    )
    usable = Choice("EarlierTrainingUsable?")
    use_model = Pass(
        "UseEarlierTraining", input_path="$.earlier", result_path="$.train", comment="As if it had just been trained"
    )
    name_artifacts = Pass(
        "NameEarlierArtifacts",
        parameters={
            "model_s3_uri": Expr("$.train.ModelArtifacts.S3ModelArtifacts"),
            "evidence_s3_uri": Expr(names.evidence_s3_uri_of("$.train")),
            "serving_image": "${ServingImage}",
            "program": Expr("$.settings.hosting.program"),
        },
        result_path="$.artifacts",
        comment="They lie where the earlier execution left them",
    )
    use_checkpoints = Pass(
        "UseEarlierCheckpoints",
        input_path="$.earlier.CheckpointConfig.S3Uri",
        result_path="$.names.checkpoint_s3_uri",
        comment="A job of this execution goes on where the earlier one stopped",
    )
    count_lap = Pass(
        "CountEarlierLap",
        parameters={"number": Expr("States.MathAdd($.earlier_laps.number, 1)")},
        result_path="$.earlier_laps",
    )
    wait = Wait("WaitForEarlierTraining", seconds=LAP_SECONDS)
    note_afresh = Pass(
        "NoteTrainingAfresh",
        parameters={
            "Error": "TrainingNotResumed",
            "Cause": text(
                "Training begins afresh: job {} ({}) learned from other data, code or settings, or still runs.",
                "$.settings.resume.training_job",
                "$.earlier.TrainingJobStatus",
            ),
        },
        result_path="$.warnings.ResumeTraining",
        comment="Two trainings must not be mixed",
    )
    known_champion = ChoiceRule.IsPresent("$.champion.Item.model_package_arn.S", True)
    Chain([read_serving, has_champion])
    has_champion.add_choice(known_champion, fingerprint)
    has_champion.default_choice(no_champion)
    Chain([no_champion, fingerprint, wanted])
    wanted.add_choice(ChoiceRule.Not(ChoiceRule.StringEquals("$.settings.resume.training_job", "")), describe)

    status, environment = "$.earlier.TrainingJobStatus", "$.earlier.Environment"
    same_training = _same(f"{environment}.{FINGERPRINT}", "$.fingerprint.training")
    same_champion = _same(f"{environment}.{CHAMPION}", "$.fingerprint.champion")
    ended = one_of(status, ("Completed", "Failed", "Stopped"))
    has_checkpoints = ChoiceRule.IsPresent("$.earlier.CheckpointConfig.S3Uri", True)
    in_time = ChoiceRule.NumericLessThan("$.earlier_laps.number", EARLIER_LAPS)
    completed = ChoiceRule.StringEquals(status, "Completed")
    describe.next(usable)
    usable.add_choice(ChoiceRule.And([same_training, same_champion, completed]), use_model)
    usable.add_choice(ChoiceRule.And([same_training, ended, has_checkpoints]), use_checkpoints)
    usable.add_choice(ChoiceRule.And([same_training, ChoiceRule.Not(ended), in_time]), count_lap)
    usable.default_choice(note_afresh)
    Chain([count_lap, wait, describe])
    Chain([use_model, name_artifacts])
    doors = [wanted.default_choice, partial(warn, describe), note_afresh.next, use_checkpoints.next]
    return Chapter(read_serving, doors, [(judge, name_artifacts.next)])


def _same(variable: str, other: str) -> ChoiceRule:
    return known(variable, ChoiceRule.StringEqualsPath(variable, other))


# 6. Learn


def train(config: Config) -> Chapter:
    use_spot = Choice("UseSpot?", comment="Spare capacity costs less and may be interrupted")
    spot = training_step("Train", config, spot=True, comment="Trains on managed spot capacity")
    on_demand = training_step("TrainOnDemand", config, spot=False, comment="Trains on demand")
    describe = sdk_step(
        "DescribeSpotTraining",
        "sagemaker:describeTrainingJob",
        {"TrainingJobName": Expr(names.training_job())},
        result_path="$.train",
        comment="How did the job end? The cause of a failure may be cut off, or have no form at all",
    )
    spot_completed = Choice(
        "SpotTrainingCompleted?",
        comment="Only what lacks capacity goes on elsewhere. A stopped job may look like success here; it is none",
    )
    note_fall_back = Pass(
        "NoteFallBack",
        parameters={
            "Error": "NoSpotCapacity",
            "Cause": text("There was no spot capacity for {}-{}.", "$.names.training_job", "$.attempt.number"),
        },
        result_path="$.warnings.Train",
        comment="Training goes on on demand, which costs more",
    )
    forget_failure = Pass("ForgetFailure", result={}, result_path="$.failed", comment="The next job makes it good")
    next_attempt = Pass(
        "NextAttempt",
        parameters={"number": Expr("States.MathAdd($.attempt.number, 1)")},
        result_path="$.attempt",
        comment="A job of another name that resumes from the same checkpoints",
    )
    spot_failed = Pass("SpotTrainingFailed", comment="Why is in the state data already")
    completed = Choice("TrainingCompleted?", comment="A job that was stopped may look like success here; it is none")
    not_completed = failure(
        "TrainingNotCompleted",
        "Train",
        "TrainingNotCompleted",
        Expr("States.JsonToString($.train)"),
        "The job ended, but not well: it was stopped, or waited too long for capacity",
    )
    name_artifacts = Pass(
        "NameArtifacts",
        comment="Where SageMaker put the model and the evidence",
        parameters={
            "model_s3_uri": Expr(names.artifact_s3_uri("model.tar.gz")),
            "evidence_s3_uri": Expr(names.artifact_s3_uri("output.tar.gz")),
            "serving_image": "${ServingImage}",
            "program": Expr("$.settings.hosting.program"),
        },
        result_path="$.artifacts",
    )
    use_spot.add_choice(ChoiceRule.BooleanEquals("$.settings.training.managed_spot", True), spot)
    use_spot.default_choice(on_demand)
    on_demand.next(completed)
    status, reason = "$.train.TrainingJobStatus", "$.train.FailureReason"
    is_completed = known(status, ChoiceRule.StringEquals(status, "Completed"))
    completed.add_choice(is_completed, name_artifacts)
    completed.default_choice(not_completed)

    # Whether `.sync` fails or succeeds for a job that is Stopped, and what it calls its errors, is documented nowhere:
    # whatever it does, what decides is the job itself.
    spot.add_catch(Catch(describe, error_equals=["States.ALL"], result_path="$.failed.Train"))
    spot.next(spot_completed)
    describe.add_catch(Catch(spot_completed, error_equals=["States.ALL"], result_path="$.train"))
    describe.next(spot_completed)
    secondary = "$.train.SecondaryStatus"
    waited_too_long = [
        ChoiceRule.StringEquals(status, "Stopped"),
        known(secondary, ChoiceRule.StringEquals(secondary, "MaxWaitTimeExceeded")),
    ]
    no_capacity = [
        ChoiceRule.StringEquals(status, "Failed"),
        known(reason, ChoiceRule.StringMatches(reason, "CapacityError*")),
    ]
    fall_back = ChoiceRule.Or([ChoiceRule.And(waited_too_long), ChoiceRule.And(no_capacity)])
    spot_completed.add_choice(is_completed, name_artifacts)
    spot_completed.add_choice(known(status, fall_back), note_fall_back)
    spot_completed.add_choice(ChoiceRule.IsPresent("$.failed.Train", True), spot_failed)
    spot_completed.default_choice(not_completed)
    Chain([note_fall_back, forget_failure, next_attempt, on_demand])
    return Chapter(use_spot, [name_artifacts.next])


# 7. Is it good enough?


def judge(_config: Config) -> Chapter:
    quality_gate = lambda_step(
        "QualityGate",
        "QualityGate",
        {"training_job": Expr("$.train"), "gate": Expr("$.settings.gate")},
        seconds=60,
        comment="Compares the test accuracy with the threshold and with the model that serves now",
        result_selector=payload_of("passed", "reason", "test_accuracy", "champion_test_accuracy", "comparable"),
        result_path="$.gate",
    )
    passed = Choice("PassedQualityGate?")
    refused = failure(
        "QualityGateRefused",
        "QualityGate",
        "QualityGateRefused",
        Expr("$.gate.reason"),
        "The model is not good enough: nothing is deployed",
    )
    quality_gate.next(passed)
    passed.default_choice(refused)
    allow = partial(passed.add_choice, ChoiceRule.BooleanEquals("$.gate.passed", True))
    return Chapter(quality_gate, [allow])


# 8. Write it down


def register(_config: Config) -> Chapter:
    register_version = sdk_step(
        "RegisterVersion",
        "sagemaker:createModelPackage",
        {
            "ModelPackageGroupName": "${ModelPackageGroup}",
            "ModelApprovalStatus": "PendingManualApproval",
            "InferenceSpecification": {
                "Containers": [
                    {
                        "Image": "${ServingImage}",
                        "ModelDataUrl": Expr("$.artifacts.model_s3_uri"),
                        "Environment": {"SAGEMAKER_PROGRAM": Expr("$.artifacts.program")},
                    },
                ],
                "SupportedContentTypes": ["image/jpeg", "image/png", "image/webp", "application/json"],
            },
            "CustomerMetadataProperties": {
                "run": Expr("$.names.run"),
                "evidence_s3_uri": Expr("$.artifacts.evidence_s3_uri"),
                "data_manifest_sha256": Expr("$.data.manifest_sha256"),
                "test_accuracy": text("{}", "$.gate.test_accuracy"),
            },
            "ClientToken": Expr("$.names.run"),
        },
        result_path="$.package",
        comment="A new version of the model package group, approved only when everything has gone well",
    )
    return Chapter(register_version, [register_version.next])


# 9. What the endpoint is made of


def host(config: Config) -> Chapter:
    tags = {"kelpie:project": config.project.name, "kelpie:run": Expr("$.names.run")}
    model_parameters: dict[str, Any] = {
        "EnableNetworkIsolation": True,
        "PrimaryContainer": {
            # Empty means none: the SDK's own models say it like that (sagemaker.model.Model, 2.257).
            "Environment": {"PYTHONUNBUFFERED": "1", "SAGEMAKER_PROGRAM": Expr("$.artifacts.program")},
        },
    }
    if subnets(config):
        model_parameters["VpcConfig"] = {
            "Subnets": subnets(config),
            "SecurityGroupIds": security_groups(config),
        }
    create_model = ModelStep(
        "CreateModel",
        model=trained_model(config),
        model_name=Expr("$.names.model"),
        tags=tags,
        parameters=model_parameters,
        timeout_seconds=60,
        retry=retry("sagemaker"),
        result_path=None,
        comment="The archive and the image that serves it",
    )
    create_endpoint_config = EndpointConfigStep(
        "CreateEndpointConfig",
        endpoint_config_name=Expr("$.names.endpoint_config"),
        model_name=Expr("$.names.model"),
        initial_instance_count=Expr("$.settings.hosting.min_instance_count"),
        instance_type=Expr("$.settings.hosting.instance_type"),
        variant_name=names.VARIANT,
        tags=tags,
        timeout_seconds=60,
        retry=retry("sagemaker"),
        result_path=None,
        comment="Instances, encryption, and what is recorded of requests and answers",
    )
    create_endpoint_config.fields["parameters"] |= {
        # Local disks are encrypted by their own hardware, and SageMaker refuses a key for them.
        **({} if has_local_storage(config.hosting.instance_type) else {"KmsKeyId": "${KmsKeyArn}"}),
        "DataCaptureConfig": {
            "EnableCapture": True,
            "InitialSamplingPercentage": 10,
            "DestinationS3Uri": "s3://${ArtifactBucket}/captures/",
            "KmsKeyId": "${KmsKeyArn}",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        },
    }
    Chain([create_model, create_endpoint_config])
    return Chapter(create_model, [create_endpoint_config.next])


# 10. Put it where requests arrive


def deploy(config: Config) -> Chapter:
    start_looking = Pass("StartLooking", result={"laps": 0}, result_path="$.waiting")
    count_lap = Pass(
        "CountBusyLap", parameters={"laps": Expr("States.MathAdd($.waiting.laps, 1)")}, result_path="$.waiting"
    )
    wait = Wait("WaitForBusyEndpoint", seconds=LAP_SECONDS)
    describe = sdk_step(
        "DescribeEndpoint",
        "sagemaker:describeEndpoint",
        {"EndpointName": Expr("$.names.endpoint")},
        # When there is no endpoint yet, the answer is the generic error, under which throttling arrives too: a few
        # seconds of trying again on the first deployment are the price for not failing when SageMaker is busy.
        retry=Retry(error_equals=THROTTLED["sagemaker"], interval_seconds=5, max_attempts=2, backoff_rate=2.0),
        result_path="$.endpoint",
        comment="What serves now?",
    )
    exists = Choice("EndpointExists?", comment="A missing endpoint can be told from other errors by its text only")
    none_yet = Pass(
        "NoEndpointYet",
        parameters={"exists": False, "EndpointConfigName": ""},
        result_path="$.endpoint",
        comment="This is the first deployment",
    )
    is_there = Pass("EndpointIsThere", result=True, result_path="$.endpoint.exists")
    first_variant = Pass(
        "TakeFirstVariant",
        parameters={"variant": Expr("States.ArrayGetItem($.endpoint.ProductionVariants, 0)")},
        result_path="$.serving",
        comment="There is only one; a Choice cannot look into a list everywhere",
    )
    describe_config = sdk_step(
        "DescribeServingConfig",
        "sagemaker:describeEndpointConfig",
        {"EndpointConfigName": Expr("$.endpoint.EndpointConfigName")},
        result_selector={"variant": Expr("States.ArrayGetItem($.ProductionVariants, 0)")},
        result_path="$.serving.config",
        comment="On which instances? DescribeEndpoint does not say",
    )
    target = scalable_target(config)
    describe_target = sdk_step(
        "DescribeScalableTarget",
        "applicationautoscaling:describeScalableTargets",
        {key: value for key, value in target.items() if key != "ResourceId"} | {"ResourceIds": [target["ResourceId"]]},
        result_path="$.scaling.target",
        comment="Between how many instances it scales now, if it does",
    )
    describe_policies = sdk_step(
        "DescribeScalingPolicies",
        "applicationautoscaling:describeScalingPolicies",
        target,
        result_path="$.scaling.policies",
        comment="And by what: CleanUp puts both back as they were",
    )
    type_changes = Choice(
        "InstanceTypeChanges?", comment="SageMaker refuses to change the instances of a variant that scales"
    )
    deregister = sdk_step(
        "DeregisterScalableTarget",
        "applicationautoscaling:deregisterScalableTarget",
        target,
        result_path=None,
        comment="No scaling until the new instances serve; its policies go with the target",
    )
    unusable = failure(
        "EndpointUnusable",
        "DescribeEndpoint",
        "EndpointUnusable",
        text("Endpoint {} is {}: it cannot be updated now.", "$.names.endpoint", "$.endpoint.EndpointStatus"),
        "It is broken, or has been changed by someone else for too long",
    )
    unknown = Pass(
        "EndpointUnknown",
        input_path="$.endpoint",
        result_path="$.failed.DescribeEndpoint",
        comment="DescribeEndpoint failed for some other reason",
    )
    create = EndpointStep(
        "CreateEndpoint",
        endpoint_name=Expr("$.names.endpoint"),
        endpoint_config_name=Expr("$.names.endpoint_config"),
        tags={"kelpie:project": config.project.name},
        timeout_seconds=60,
        retry=retry("sagemaker"),
        result_path=None,
        comment="The first model of this project goes live",
    )
    several = Choice("SeveralInstances?", comment="With one instance there is no part of it to try the model on")
    canary = Pass(
        "ShiftOneInstanceFirst",
        result={
            "Type": "CANARY",
            "WaitIntervalInSeconds": BAKE_SECONDS,
            "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1},
        },
        result_path="$.traffic",
    )
    all_at_once = Pass(
        "ShiftAllAtOnce",
        result={"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": BAKE_SECONDS},
        result_path="$.traffic",
    )
    update = sdk_step(
        "UpdateEndpoint",
        "sagemaker:updateEndpoint",
        {
            "EndpointName": Expr("$.names.endpoint"),
            "EndpointConfigName": Expr("$.names.endpoint_config"),
            "RetainAllVariantProperties": True,
            "DeploymentConfig": {
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": Expr("$.traffic"),
                    "TerminationWaitInSeconds": 120,
                    "MaximumExecutionTimeoutInSeconds": 3600,
                },
                "AutoRollbackConfiguration": {
                    "Alarms": [
                        {"AlarmName": "${EndpointErrorsAlarm}"},
                        {"AlarmName": "${EndpointLatencyAlarm}"},
                    ]
                },
            },
        },
        result_path=None,
        comment="Blue/green: new instances beside the old ones; the alarms take it back",
    )
    describe.add_catch(Catch(exists, error_equals=["States.ALL"], result_path="$.endpoint"))
    describe.next(exists)
    cause, status = "$.endpoint.Cause", "$.endpoint.EndpointStatus"
    exists.add_choice(known(cause, ChoiceRule.StringMatches(cause, "*Could not find endpoint *")), none_yet)
    usable = [
        ChoiceRule.IsPresent(status, True),
        one_of(status, ("InService", "UpdateRollbackFailed")),
        ChoiceRule.IsPresent("$.endpoint.ProductionVariants", True),
    ]
    exists.add_choice(ChoiceRule.And(usable), is_there)
    in_time = ChoiceRule.NumericLessThan("$.waiting.laps", BUSY_LAPS)
    # Automatic scaling changes it too.
    exists.add_choice(known(status, ChoiceRule.And([one_of(status, CHANGING), in_time])), count_lap)
    exists.add_choice(ChoiceRule.IsPresent(status, True), unusable)
    exists.default_choice(unknown)

    Chain([start_looking, describe])
    Chain([count_lap, wait, describe])
    none_yet.next(create)
    Chain([is_there, first_variant, describe_config, describe_target, describe_policies, several])
    count = "$.serving.variant.CurrentInstanceCount"
    several.add_choice(known(count, ChoiceRule.NumericGreaterThanEquals(count, 2)), canary)
    several.default_choice(all_at_once)
    canary.next(type_changes)
    all_at_once.next(type_changes)
    instances = "$.serving.config.variant.InstanceType"
    same = known(instances, ChoiceRule.StringEqualsPath(instances, "$.settings.hosting.instance_type"))
    type_changes.add_choice(same, update)
    type_changes.default_choice(deregister)
    not_registered = ["ApplicationAutoScaling.ObjectNotFoundException"]
    deregister.add_catch(Catch(update, error_equals=not_registered, result_path="$.scaling.deregistered"))
    deregister.next(update)

    return Chapter(start_looking, [create.next, update.next])


# 11. Wait until it is there


def wait_for_endpoint(_config: Config) -> Chapter:
    start_waiting = Pass("StartWaiting", result={"laps": 0}, result_path="$.waiting")
    wait = Wait("WaitForEndpoint", seconds=LAP_SECONDS)
    describe_deployment = sdk_step(
        "DescribeDeployment",
        "sagemaker:describeEndpoint",
        {"EndpointName": Expr("$.names.endpoint")},
        result_path="$.deployment",
    )
    settled = Choice("EndpointSettled?")
    count_lap = Pass(
        "CountLap", parameters={"laps": Expr("States.MathAdd($.waiting.laps, 1)")}, result_path="$.waiting"
    )
    not_ready = failure(
        "EndpointNotReady",
        "WaitForEndpoint",
        "EndpointNotReady",
        Expr("States.JsonToString($.deployment)"),
        "The new model could not be started, or not in time",
    )
    serving_new = Choice("ServingNewConfig?", comment="An update that was rolled back ends InService too")
    rolled_back = failure(
        "UpdateRolledBack",
        "UpdateEndpoint",
        "UpdateRolledBack",
        Expr("States.JsonToString($.deployment)"),
        "SageMaker put the old model back",
    )

    Chain([start_waiting, wait, describe_deployment, settled])
    status = "$.deployment.EndpointStatus"
    settled.add_choice(ChoiceRule.StringEquals(status, "InService"), serving_new)
    in_time = ChoiceRule.NumericLessThan("$.waiting.laps", ENDPOINT_LAPS)
    settled.add_choice(ChoiceRule.And([one_of(status, CHANGING), in_time]), count_lap)
    settled.default_choice(not_ready)
    count_lap.next(wait)

    serving_new.default_choice(rolled_back)
    name = "$.deployment.EndpointConfigName"
    is_new = known(name, ChoiceRule.StringEqualsPath(name, "$.names.endpoint_config"))
    return Chapter(start_waiting, [partial(serving_new.add_choice, is_new)])


# 12. More instances when more requests come


def scale(config: Config) -> Chapter:
    target = scalable_target(config)
    register_target = sdk_step(
        "RegisterScalableTarget",
        "applicationautoscaling:registerScalableTarget",
        {
            **target,
            "MinCapacity": Expr("$.settings.hosting.min_instance_count"),
            "MaxCapacity": Expr("$.settings.hosting.max_instance_count"),
        },
        result_path=None,
        comment="Between how many instances",
    )
    put_policy = sdk_step(
        "PutScalingPolicy",
        "applicationautoscaling:putScalingPolicy",
        {
            **target,
            "PolicyName": f"{config.project.name}-invocations",
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": {
                "TargetValue": Expr("$.settings.hosting.target_invocations_per_instance"),
                "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
                "ScaleInCooldown": Expr("$.settings.hosting.scale_in_cooldown_seconds"),
                "ScaleOutCooldown": Expr("$.settings.hosting.scale_out_cooldown_seconds"),
            },
        },
        result_path=None,
        comment="How many requests an instance should have to answer in a minute",
    )
    Chain([register_target, put_policy])
    return Chapter(register_target, [put_policy.next])


def scalable_target(config: Config) -> dict[str, str]:
    """What Application Auto Scaling knows the endpoint's variant by."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": names.scalable_resource(config.project.name),
        "ScalableDimension": names.SCALABLE_DIMENSION,
    }


# 13. Does it answer?


def prove(_config: Config) -> Chapter:
    smoke_test = lambda_step(
        "SmokeTest",
        "SmokeTest",
        {
            "endpoint_name": Expr("$.names.endpoint"),
            "evidence_s3_uri": Expr("$.artifacts.evidence_s3_uri"),
            "min_accuracy": Expr("$.settings.smoke_test.min_accuracy"),
            "max_latency_ms": Expr("$.settings.smoke_test.max_latency_ms"),
        },
        seconds=360,
        comment="Sends known pictures to the endpoint",
        result_selector=payload_of("accuracy", "picture_count", "latency_ms", "predictions"),
        result_path="$.smoke",
    )
    return Chapter(smoke_test, [smoke_test.next])


# 14. From now on this is the model


def promote(config: Config) -> Chapter:
    """RecordServing is the point of no return, so it comes first: what fails before it is rolled back whole.

    After it the new model is the one that serves. A model that is taken back must never be approved, or be the champion
    that the next one is compared with; one that stays and is not yet either of them does no harm.
    """
    record_serving = DynamoDBPutItemStep(
        "RecordServing",
        parameters={
            "TableName": "${LockTable}",
            "Item": {
                "pk": {"S": names.serving_pointer(config.project.name)},
                "endpoint_config": {"S": Expr("$.names.endpoint_config")},
                "previous_endpoint_config": {"S": Expr("$.endpoint.EndpointConfigName")},
                "model": {"S": Expr("$.names.model")},
                "model_s3_uri": {"S": Expr("$.artifacts.model_s3_uri")},
                "model_package_arn": {"S": Expr("$.package.ModelPackageArn")},
                "execution": {"S": Expr("$$.Execution.Id")},
                "recorded_at": {"S": Expr("$$.State.EnteredTime")},
            },
        },
        timeout_seconds=60,
        retry=retry("dynamodb"),
        result_path=None,
        comment="The point of no return: what serves now, and what served before it",
    )
    approve = sdk_step(
        "ApproveVersion",
        "sagemaker:updateModelPackage",
        {
            "ModelPackageArn": Expr("$.package.ModelPackageArn"),
            "ModelApprovalStatus": "Approved",
            "ApprovalDescription": text("Run {} passed the smoke test; {}.", "$.names.run", "$.gate.reason"),
        },
        result_path=None,
    )
    keep_champion = sdk_step(
        "KeepChampion",
        "s3:copyObject",
        {
            "Bucket": "${ArtifactBucket}",
            "Key": "champion/model.tar.gz",
            "CopySource": Expr(names.copy_source_of("$.artifacts.model_s3_uri")),
            "ExpectedBucketOwner": "${AccountId}",
        },
        seconds=900,
        result_path=None,
        comment="The next training scores this model on its own test pictures",
    )
    Chain([record_serving, approve, keep_champion])
    warn(approve, keep_champion)
    return Chapter(record_serving, [keep_champion.next, partial(warn, keep_champion)])


def warn(state: State, following: State) -> None:
    """A failure of this state is noted under `$.warnings`, and the story goes on."""
    state.add_catch(Catch(following, error_equals=["States.ALL"], result_path=f"$.warnings.{state.state_id}"))


# 15. Tidy up and say so


def finish(config: Config) -> Chapter:
    """After RecordServing the new model serves and is recorded.

    Whatever fails from here on does not make it a worse model, so nothing here may roll it back: such a failure is
    noted under `$.warnings` and the story goes on. Old versions that stay cost nothing and are pruned next time; a lock
    that stays is taken over, because its owner no longer runs; and a message that was not sent is still in the output.
    """
    prune = lambda_step(
        "PruneOldVersions",
        "PruneVersions",
        {
            "project": config.project.name,
            "model_package_group": "${ModelPackageGroup}",
            "endpoint_name": Expr("$.names.endpoint"),
            "versions_to_keep": config.retention.versions_to_keep,
        },
        seconds=180,
        result_selector=payload_of("deleted", "kept", "deleted_names"),
        result_path="$.pruned",
    )
    release = release_lock("ReleaseLock", config)
    notify = SnsPublishStep(
        "NotifySuccess",
        parameters={
            "TopicArn": "${NotificationTopicArn}",
            "Message": text(
                f"{config.project.name} (${{Region}}, account ${{AccountId}}): "
                "endpoint {} serves version {}. Test accuracy {} ({}), smoke test accuracy {}. Execution {}.",
                "$.names.endpoint",
                "$.package.ModelPackageArn",
                "$.gate.test_accuracy",
                "$.gate.reason",
                "$.smoke.accuracy",
                "$$.Execution.Id",
            ),
        },
        timeout_seconds=60,
        retry=retry("sns"),
        result_path=None,
    )
    succeeded = Succeed("Succeeded")
    states = [prune, release, notify, succeeded]
    Chain(states)
    for state, following in pairwise(states):
        warn(state, following)
    return Chapter(prune)


def release_lock(state_id: str, config: Config) -> DynamoDBDeleteItemStep:
    """Let go of the lock, unless it is no longer ours."""
    return DynamoDBDeleteItemStep(
        state_id,
        parameters={
            "TableName": "${LockTable}",
            "Key": {"pk": {"S": config.project.name}},
            "ConditionExpression": "#owner = :me",
            "ExpressionAttributeNames": {"#owner": "owner"},
            "ExpressionAttributeValues": {":me": {"S": Expr("$$.Execution.Id")}},
        },
        timeout_seconds=60,
        retry=retry("dynamodb"),
        result_path=None,
    )


# The way back, from wherever something failed


def go_back(config: Config) -> Chapter:
    clean_up = lambda_step(
        "CleanUp",
        "CleanUp",
        {
            "state": Expr("$"),
            "execution_id": Expr("$$.Execution.Id"),
            "project": config.project.name,
            "lock_table": "${LockTable}",
        },
        seconds=360,
        # It may be repeated, whatever happened to it: a call without an answer must not leave an endpoint behind.
        retry=Retry(error_equals=["States.ALL"], interval_seconds=LAP_SECONDS, max_attempts=3, backoff_rate=1.0),
        comment="One step back towards what was before, and what went wrong in one sentence",
        result_selector=payload_of("done", "error", "cause", "actions"),
        result_path="$.clean_up",
    )
    cleaned_up = Choice("CleanedUp?")
    count_lap = Pass(
        "CountCleanUpLap",
        parameters={"number": Expr("States.MathAdd($.clean_up_laps.number, 1)")},
        result_path="$.clean_up_laps",
    )
    wait = Wait("WaitForCleanUp", seconds=CLEAN_UP_LAP_SECONDS)
    clean_up_failed = Pass(
        "CleanUpFailed",
        parameters={
            "done": False,
            "error": "CleanUpFailed",
            "cause": text(
                "Something may be left behind that costs money: look for the resources of execution {}. "
                "What failed: {}",
                "$$.Execution.Id",
                "States.JsonToString($.failed)",
            ),
            "actions": [],
        },
        result_path="$.clean_up",
        comment="The way back is blocked: a person must look",
    )
    release = release_lock("ReleaseLockAfterFailure", config)
    notify = SnsPublishStep(
        "NotifyFailure",
        parameters={
            "TopicArn": "${NotificationTopicArn}",
            "Message": text(
                f"{config.project.name} (${{Region}}, account ${{AccountId}}): execution {{}} failed. {{}}: {{}}",
                "$$.Execution.Id",
                "$.clean_up.error",
                "$.clean_up.cause",
            ),
        },
        timeout_seconds=60,
        retry=retry("sns"),
        result_path=None,
    )
    failed = Fail("ExecutionFailed", error_path="$.clean_up.error", cause_path="$.clean_up.cause")

    clean_up.add_catch(Catch(clean_up_failed, error_equals=["States.ALL"], result_path="$.failed.CleanUp"))
    clean_up.next(cleaned_up)
    cleaned_up.add_choice(ChoiceRule.BooleanEquals("$.clean_up.done", True), release)
    in_time = ChoiceRule.NumericLessThan("$.clean_up_laps.number", CLEAN_UP_LAPS)
    cleaned_up.add_choice(in_time, count_lap)
    cleaned_up.default_choice(clean_up_failed)
    Chain([count_lap, wait, clean_up])
    Chain([clean_up_failed, release, notify, failed])
    # Neither may hide the cause.
    for state, following in ((release, notify), (notify, failed)):
        all_errors = {"error_equals": ["States.ALL"], "result_path": f"$.failed.{state.state_id}"}
        state.add_catch(Catch(following, **all_errors))
    return Chapter(clean_up)


CHAPTERS = (
    settle,
    lock,
    bring_back,
    check,
    resume,
    train,
    judge,
    register,
    host,
    deploy,
    wait_for_endpoint,
    scale,
    prove,
    promote,
    finish,
)


def build(config: Config) -> dict[str, Any]:
    """The state machine in the Amazon States Language, with `${Name}` for what belongs to an account.

    Needs neither network nor credentials, and is the same for the same config.
    """
    with guarded():
        chapters = [chapter(config) for chapter in CHAPTERS]
        first = dict(zip(CHAPTERS, (chapter.first for chapter in chapters), strict=True))
        for chapter, following in pairwise(chapters):
            for door in chapter.doors:
                door(following.first)
            for destination, door in chapter.side_doors:
                door(first[destination])
        story = _States()
        chapters[0].first.accept(story)
        clean_up = go_back(config).first
        for state in story.found.values():
            _lead_back(state, clean_up)
        graph = Graph(
            chapters[0].first,
            comment=f"{config.project.name}: from labelled pictures to a guarded, autoscaled endpoint",
            timeout_seconds=TIMEOUT_SECONDS,
        )
        definition: dict[str, Any] = graph.to_dict()
    return definition


def render(config: Config) -> str:
    """The state machine as JSON text, always the same bytes for the same config."""
    return json.dumps(build(config), indent=2, ensure_ascii=False) + "\n"


class _States:
    """Collects the states that can be reached; the SDK's states know how to be visited."""

    def __init__(self) -> None:
        self.found: dict[str, State] = {}

    def is_visited(self, state: State) -> bool:
        return state.state_id in self.found

    def visit(self, state: State) -> None:
        self.found[state.state_id] = state


def _lead_back(state: State, clean_up: State) -> None:
    """Every Task that has no other way out for all errors, and every named failure, goes on to CleanUp."""
    if state.state_type == "Task" and not any("States.ALL" in catch.error_equals for catch in state.catches):
        failed = f"$.failed.{state.state_id}"
        state.add_catch(Catch(clean_up, error_equals=["States.ALL"], result_path=failed))
    if state.state_type == "Pass" and state.next_step is None:
        state.next(clean_up)
