"""Chapters 8 to 12: register the version, deploy it, wait, let it scale."""

from __future__ import annotations

from functools import partial
from typing import Any

from workflow import names
from workflow.config import Config
from workflow.definition.chapter import CHANGING, LAP_SECONDS, Chapter
from workflow.instances import has_local_storage
from workflow.sdk import (
    Catch,
    Chain,
    Choice,
    ChoiceRule,
    EndpointConfigStep,
    EndpointStep,
    Expr,
    ModelStep,
    Pass,
    Retry,
    Wait,
)
from workflow.training_job import (
    security_groups,
    subnets,
    trained_model,
)
from workflow.words import THROTTLED, failure, known, one_of, retry, sdk_step, text

ENDPOINT_LAPS = 240
"""How often the endpoint is looked at: 2 hours. A broken container can keep an endpoint Creating for an hour.

Source: issue 3432 of aws/amazon-sagemaker-examples, read 2026-11.
"""

BUSY_LAPS = 60
"""How often the endpoint is looked at while it changes before it is touched, by automatic scaling say: 30 minutes."""

BAKE_SECONDS = 300
"""Time for which the alarms watch the new instances before the old ones go."""


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
