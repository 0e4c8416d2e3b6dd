"""Names: what is legal at AWS, tried on the names that this project makes, at their longest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.session import Session

from workflow import names
from workflow.preflight.findings import Finding, Subject, error

_RUN = "f" * 32
"""Every run is called by an MD5."""

NAME_LIMITS: Mapping[str, Mapping[str, int]] = {
    "AWS::Lambda::Function": {"FunctionName": 64},
    "AWS::Lambda::Alias": {"Name": 128},
    "AWS::Lambda::LayerVersion": {"LayerName": 140},
    "AWS::StepFunctions::StateMachine": {"StateMachineName": 80},
    "AWS::StepFunctions::StateMachineAlias": {"Name": 80},
    "AWS::CloudWatch::Alarm": {"AlarmName": 255},
    "AWS::CloudWatch::Dashboard": {"DashboardName": 255},
    "AWS::Logs::LogGroup": {"LogGroupName": 512},
    "AWS::Scheduler::Schedule": {"Name": 64},
    "AWS::Events::Rule": {"Name": 64},
    "AWS::SQS::Queue": {"QueueName": 80},
    "AWS::SNS::Topic": {"TopicName": 256},
    "AWS::S3::Bucket": {"BucketName": 63},
    "AWS::IAM::Role": {"RoleName": 64},
    "AWS::KMS::Alias": {"AliasName": 256},
    "AWS::ECR::Repository": {"RepositoryName": 256},
    "AWS::CodeBuild::Project": {"Name": 150},
    "AWS::SageMaker::ModelPackageGroup": {"ModelPackageGroupName": 63},
    "AWS::DynamoDB::Table": {"TableName": 255},
}
"""Longest name of what the template names itself, in characters. Source: botocore 1.44.5, and for Lambda functions the
API reference of CreateFunction (64, where the model counts the ARN), read 2026-11."""

_SUBSTITUTED = {
    "AWS::AccountId": "123456789012",
    "AWS::Region": "ap-southeast-5",  # among the longest
    "AWS::Partition": "aws",
}


def check(subject: Subject) -> Iterator[Finding]:
    """Names of the executions' resources and of the stack's."""
    project = subject.config.project.name
    for shape_name, name in made_by_executions(project).items():
        shape = _sagemaker().shape_for(shape_name)
        if len(name) > shape.metadata["max"] or re.fullmatch(shape.metadata["pattern"], name) is None:
            yield error(
                f"{name} is no {shape_name} that SageMaker accepts: at most {shape.metadata['max']} characters, "
                f"matching {shape.metadata['pattern']}.",
                "project.name",
                "The execution fails at the state that makes it.",
                f"Choose a name of at most {names.MAX_PROJECT_LENGTH} characters.",
            )
    for where, name, limit in made_by_the_stack(subject.template, project):
        if len(name) > limit:
            yield error(
                f"{name} has {len(name)} characters; allowed: {limit}.",
                f"workflow/stack.yaml, {where}",
                "CloudFormation refuses the deployment.",
                "Shorten project.name, or the name in the template.",
            )


def made_by_executions(project: str) -> dict[str, str]:
    """The longest name of each kind that an execution makes, by its shape in SageMaker's model."""
    return {
        "TrainingJobName": names.longest_training_job_name(project),
        "ModelName": f"{project}-{_RUN}",
        "EndpointConfigName": f"{project}-{_RUN}",
        "EndpointName": project,
        "VariantName": names.VARIANT,
    }


def made_by_the_stack(template: Mapping[str, Any], project: str) -> Iterator[tuple[str, str, int]]:
    """Where, the name, and its limit, for every name that the template writes out."""
    for logical_name, resource in template["Resources"].items():
        for key, limit in NAME_LIMITS.get(resource["Type"], {}).items():
            written = resource.get("Properties", {}).get(key)
            name = _filled(written, project)
            if name is not None:
                yield f"{logical_name}.{key}", name, limit


def _filled(written: Any, project: str) -> str | None:
    """A name with project, account and Region filled in; None when there is none, or other things are in it."""
    values = {**_SUBSTITUTED, "ProjectName": project}
    if isinstance(written, Mapping) and "Ref" in written:
        return values.get(written["Ref"])
    if isinstance(written, Mapping) and isinstance(written.get("Fn::Sub"), str):
        written = re.sub(r"\$\{([\w:]+)\}", lambda match: values.get(match[1], match[0]), written["Fn::Sub"])
    return written if isinstance(written, str) and "${" not in written else None


@cache
def _sagemaker() -> Any:
    return Session().get_service_model("sagemaker")
