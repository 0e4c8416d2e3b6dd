"""Chapters 4 to 7: look at the data, resume or learn, judge."""

from __future__ import annotations

from functools import partial

from workflow import names
from workflow.config import Config
from workflow.definition.chapter import LAP_SECONDS, Chapter, warn
from workflow.sdk import (
    Catch,
    Chain,
    Choice,
    ChoiceRule,
    DynamoDBGetItemStep,
    Expr,
    Pass,
    Wait,
)
from workflow.training_job import (
    CHAMPION,
    FINGERPRINT,
    training_fingerprint,
    training_step,
)
from workflow.words import failure, known, lambda_step, one_of, payload_of, retry, sdk_step, text

EARLIER_LAPS = 60
"""How often an earlier training job is looked at until it has ended: half an hour. One that was stopped has two minutes
for its last checkpoint, and then uploads what it made."""


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
