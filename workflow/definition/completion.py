"""Chapters 13 to 15: prove that it answers, promote it, tidy up and say so."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from workflow import names
from workflow.config import Config
from workflow.definition.chapter import Chapter, release_lock, warn
from workflow.sdk import (
    Chain,
    DynamoDBPutItemStep,
    Expr,
    SnsPublishStep,
    Succeed,
)
from workflow.words import lambda_step, payload_of, retry, sdk_step, text

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
