"""Permissions that only the real AWS asks for: no scenario in the local cloud shows the need, so each has a source.

A row that a recorded request needs after all, or that covers nothing in stack.yaml, fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch


@dataclass(frozen=True)
class Excuse:
    """Why a part of a policy is there. `actions`, `roles` and `resources` are wildcards; all must match."""

    roles: str
    sid: str
    actions: tuple[str, ...]
    why: str
    source: str
    resources: str = "*"

    def covers(self, owner: str, sid: str, resource: str) -> bool:
        """Whether it is about this statement, and this resource of it if it is about one."""
        return fnmatch(owner, self.roles) and fnmatch(sid, self.sid) and fnmatch(resource, self.resources)

    def names(self, action: str) -> bool:
        """Whether it is about this action."""
        return any(fnmatch(action, pattern) for pattern in self.actions)


_SNS = "SNS Developer Guide, Managing Amazon SNS encryption keys, compatibility with AWS services"
_SCALING = "SageMaker Developer Guide, Auto scaling policy prerequisites"
_ROLES = "SageMaker Developer Guide, How to use SageMaker AI execution roles"

REAL_AWS_ONLY: tuple[Excuse, ...] = (
    Excuse(
        "DataBucket", "OnlyThisKey", ("s3:PutObject",),
        "Data sets are uploaded by people, whose permissions are not this stack's; they need not name an encryption",
        "S3 User Guide, Using server-side encryption with AWS KMS keys",
    ),
    Excuse(
        "TrainingRole", "*", ("s3:AbortMultipartUpload",),
        "An upload of several parts that breaks off is taken back",
        "S3 User Guide, Multipart upload API and permissions",
    ),
    Excuse(
        "*Role", "WriteLogs", ("logs:DescribeLogStreams",), "SageMaker finds its log streams again", _ROLES,
    ),
    Excuse(
        "*Role", "WriteLogs", ("logs:*",), "CreateLogGroup is about the group, without the streams in it",
        "Service Authorization Reference, Amazon CloudWatch Logs", "*[!*]",
    ),
    Excuse(
        "HostingRole", "WriteCaptures", ("s3:PutObject",),
        "Data capture; here the setting is kept and nothing is written", _ROLES,
    ),
    Excuse(
        "CleanUpRole", "StopTraining", ("sagemaker:StopTrainingJob",),
        "Step Functions cancels the job of a .sync task that ends early by best effort; here it always does",
        "Step Functions Developer Guide, Integrating services, Run a Job (.sync)",
    ),
    Excuse(
        "*Role", "EncryptVolumes", ("kms:CreateGrant",),
        "SageMaker lets the volumes of instances use the key through a grant; here volumes are folders", _ROLES,
    ),
    Excuse(
        "*Role", "UseKey", ("kms:DescribeKey", "kms:Encrypt"),
        "SageMaker looks at the key of a volume, and encrypts outputs with it", _ROLES,
    ),
    Excuse(
        "*Role", "SignInToRegistry", ("ecr:GetAuthorizationToken",),
        "Images are pulled in the role's name; here an image stands for an environment", _ROLES,
    ),
    Excuse(
        "*Role", "PullImage", ("ecr:*",),
        "Images are pulled in the role's name; here an image stands for an environment", _ROLES,
    ),
    Excuse(
        "*Role", "ManageNetworkInterfaces", ("ec2:*",),
        "Jobs and models in a VPC get network interfaces in it; here all is on loopback", _ROLES,
    ),
    Excuse(
        "StateMachineRole", "Tag", ("sagemaker:AddTags", "sagemaker:ListTags"),
        "Step Functions adds tags of its own to what it creates for a .sync task",
        "Step Functions Developer Guide, IAM policies for calling SageMaker AI; aws/aws-cdk issue 26012",
    ),
    Excuse(
        "StateMachineRole", "CreateServiceRoleOfScaling", ("iam:CreateServiceLinkedRole",),
        "The first registration of a scalable target in an account makes the role of Application Auto Scaling",
        _SCALING,
    ),
    Excuse(
        "Key", "EncryptLogs", ("kms:*",), "CloudWatch Logs encrypts what it stores; here logs are plain",
        "CloudWatch Logs User Guide, Encrypt log data in CloudWatch Logs using AWS KMS",
    ),
    Excuse(
        "Key", "SendAlarms", ("kms:*",), "CloudWatch publishes to the encrypted topic; here no alarm publishes", _SNS,
    ),
    Excuse(
        "Key", "SendBudgetAlerts", ("kms:*",), "AWS Budgets publishes to the encrypted topic; here are no costs", _SNS,
    ),
    Excuse(
        "Key", "*Trail", ("kms:*",), "CloudTrail encrypts its records; here is no trail",
        "CloudTrail User Guide, Configure AWS KMS key policies for CloudTrail",
    ),
    Excuse(
        "NotificationTopic", "SendAlarms", ("sns:Publish",), "CloudWatch publishes; here no alarm does", _SNS,
    ),
    Excuse(
        "NotificationTopic", "SendBudgetAlerts", ("sns:Publish",), "AWS Budgets publishes; here are no costs", _SNS,
    ),
    Excuse(
        "LogBucket", "*", ("s3:*",), "S3 and other services deliver their logs; here nobody writes access logs",
        "S3 User Guide, Enabling Amazon S3 server access logging",
    ),
    Excuse(
        "TrailBucket", "*", ("s3:*",), "CloudTrail delivers its records; here is no trail",
        "CloudTrail User Guide, Amazon S3 bucket policy for CloudTrail",
    ),
    Excuse(
        "ImageBuildRole", "*", ("s3:GetObjectVersion", "s3:GetBucketAcl", "s3:GetBucketLocation", "ecr:BatchGetImage",
                                "ecr:GetDownloadUrlForLayer"),
        "CodeBuild looks at its source's bucket and pulls the layers that it has pushed before",
        "CodeBuild User Guide, Allow CodeBuild to interact with other AWS services",
    ),
    Excuse(
        "FlowLogRole", "*", ("logs:*", "sts:AssumeRole"), "The optional VPC writes flow logs; here is no network",
        "VPC User Guide, IAM role for publishing flow logs to CloudWatch Logs",
    ),
    Excuse(
        "*Role", "Find*", ("s3:ListBucket",), "Without it an object that is missing is reported as forbidden",
        "S3 API Reference, GetObject, Permissions",
    ),
    Excuse(
        "HostingRole", "UseKey", ("kms:GenerateDataKey",), "Data capture writes under the key", _ROLES,
    ),
    Excuse(
        "HostingRole", "WriteMetrics", ("cloudwatch:PutMetricData",),
        "Containers may write metrics of their own; those of the endpoint are SageMaker's", _ROLES,
    ),
    Excuse(
        "StateMachineRole", "LetScalingSetAlarms", ("cloudwatch:DeleteAlarms",),
        "Application Auto Scaling checks that its caller may do what it does itself", _SCALING,
    ),
    Excuse(
        "StateMachineRole", "DeliverLogs", ("logs:*",), "The state machine's log is delivered by CloudWatch Logs",
        "Step Functions Developer Guide, Using CloudWatch Logs to log execution history",
    ),
    Excuse(
        "StateMachineRole", "Trace", ("xray:*",), "X-Ray tracing; here nothing is traced",
        "Step Functions Developer Guide, Trace Step Functions request data in AWS X-Ray",
    ),
)  # fmt: skip
