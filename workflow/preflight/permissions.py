"""Whether the state machine's role may do what its Tasks do.

Without an account the actions are looked up in workflow/stack.yaml; with one, IAM itself simulates the deployed role on
the resources that this project uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from workflow.preflight.findings import Finding, Subject, asking, error, info
from workflow.preflight.tasks import integration

if TYPE_CHECKING:
    from workflow.account import Account

_PREFIXES = {"applicationautoscaling": "application-autoscaling", "sfn": "states"}
_SAGEMAKER_SYNC = ("sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob")
_MANAGED_RULE = ("events:PutRule", "events:PutTargets", "events:DescribeRule")

_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "lambda:invoke": ("lambda:InvokeFunction",),
    # Step Functions tags what it creates, and follows the job by a rule of its own.
    "sagemaker:createTrainingJob.sync": (
        "sagemaker:CreateTrainingJob",
        *_SAGEMAKER_SYNC,
        "sagemaker:AddTags",
        "iam:PassRole",
        *_MANAGED_RULE,
    ),
    "sagemaker:createModel": ("sagemaker:CreateModel", "sagemaker:AddTags", "iam:PassRole"),
    "sagemaker:createEndpointConfig": ("sagemaker:CreateEndpointConfig", "sagemaker:AddTags"),
    "sagemaker:createEndpoint": ("sagemaker:CreateEndpoint", "sagemaker:AddTags"),
    "aws-sdk:s3:copyObject": ("s3:GetObject", "s3:PutObject"),
    "aws-sdk:applicationautoscaling:registerScalableTarget": (
        "application-autoscaling:RegisterScalableTarget",
        "iam:CreateServiceLinkedRole",
    ),
    "aws-sdk:applicationautoscaling:putScalingPolicy": (
        "application-autoscaling:PutScalingPolicy",
        "cloudwatch:PutMetricAlarm",
        "cloudwatch:DescribeAlarms",
    ),
}
"""Where an integration needs other actions than the one that it is called after.

Source: Step Functions developer guide, "Integrating with SageMaker AI"; SageMaker developer guide, prerequisites of
automatic scaling; aws-cdk issue 26012; read 2026-11.
"""

_ARN = "arn:{partition}:{service}:{region}:{account}:"
_RESOURCES: Mapping[str, str] = {
    "sagemaker:CreateTrainingJob": _ARN + "training-job/{project}-preflight-0",
    "sagemaker:DescribeTrainingJob": _ARN + "training-job/{project}-preflight-0",
    "sagemaker:StopTrainingJob": _ARN + "training-job/{project}-preflight-0",
    "sagemaker:CreateModel": _ARN + "model/{project}-preflight",
    "sagemaker:CreateEndpointConfig": _ARN + "endpoint-config/{project}-preflight",
    "sagemaker:DescribeEndpointConfig": _ARN + "endpoint-config/{project}-preflight",
    "sagemaker:CreateEndpoint": _ARN + "endpoint/{project}",
    "sagemaker:UpdateEndpoint": _ARN + "endpoint/{project}",
    "sagemaker:DescribeEndpoint": _ARN + "endpoint/{project}",
    "sagemaker:CreateModelPackage": _ARN + "model-package/{project}/*",
    "sagemaker:DescribeModelPackage": _ARN + "model-package/{project}/1",
    "sagemaker:UpdateModelPackage": _ARN + "model-package/{project}/1",
    "sagemaker:AddTags": _ARN + "endpoint/{project}",
    "lambda:InvokeFunction": _ARN + "function:{project}-resolve-input:live",
    "dynamodb:GetItem": "{lock_table}",
    "dynamodb:PutItem": "{lock_table}",
    "dynamodb:UpdateItem": "{lock_table}",
    "states:DescribeExecution": _ARN + "execution:{project}:preflight",
    "sns:Publish": "{topic}",
    "events:PutRule": _ARN + "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    "events:PutTargets": _ARN + "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    "events:DescribeRule": _ARN + "rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    "s3:GetObject": "arn:{partition}:s3:::{artifact_bucket}/runs/preflight",
    "s3:PutObject": "arn:{partition}:s3:::{artifact_bucket}/champion/model.tar.gz",
    "application-autoscaling:RegisterScalableTarget": _ARN + "scalable-target/preflight",
    "application-autoscaling:PutScalingPolicy": _ARN + "scalable-target/preflight",
    "application-autoscaling:DeregisterScalableTarget": _ARN + "scalable-target/preflight",
    "cloudwatch:PutMetricAlarm": _ARN + "alarm:TargetTracking-preflight",
    "cloudwatch:DescribeAlarms": _ARN + "alarm:TargetTracking-preflight",
}
"""A resource on which a role of this project must be allowed the action; for others `*`. Actions with conditions on
what is passed or created (iam:PassRole, iam:CreateServiceLinkedRole) are left to the check without an account."""

_CONDITIONAL = frozenset({"iam:PassRole", "iam:CreateServiceLinkedRole"})


def needed(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The IAM actions of a Task."""
    called = integration(task)
    if called in _ACTIONS:
        return _ACTIONS[called]
    service, action = called.removeprefix("aws-sdk:").split(":")
    return (f"{_PREFIXES.get(service, service)}:{action[0].upper()}{action[1:]}",)


def allowed_actions(template: Mapping[str, Any], role: str) -> set[str]:
    """The actions, possibly with wildcards, that the template allows to a role by its logical name."""
    resources = template["Resources"]
    documents = [policy["PolicyDocument"] for policy in resources[role]["Properties"].get("Policies", ())]
    for resource in resources.values():
        if resource["Type"] == "AWS::IAM::Policy" and {"Ref": role} in resource["Properties"].get("Roles", ()):
            documents.append(resource["Properties"]["PolicyDocument"])
    found: set[str] = set()
    for document in documents:
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                actions = statement["Action"]
                found |= {actions} if isinstance(actions, str) else set(actions)
    return found


def check(subject: Subject) -> Iterator[Finding]:
    """Every action of every Task is in the policies of the state machine's role in stack.yaml."""
    patterns = [action.lower() for action in allowed_actions(subject.template, "StateMachineRole")]
    for name, task in subject.tasks().items():
        for action in needed(task):
            if not any(fnmatchcase(action.lower(), pattern) for pattern in patterns):
                yield error(
                    f"{name} needs {action}, and the state machine's role may not do it.",
                    "workflow/stack.yaml, StateMachineRole",
                    "The execution fails in this state with AccessDeniedException.",
                    "Add the action, with its resource, to a statement of the role.",
                )


def _check_deployed(subject: Subject, account: Account) -> Iterator[Finding]:
    """Ask IAM whether the deployed role may do all of it on this project's resources."""
    from workflow.deployment import stack
    from workflow.errors import KelpieError

    try:
        outputs = stack.outputs(account, subject.config)
    except KelpieError:
        yield info(
            "not asked: the permissions of the deployed role",
            "iam:SimulatePrincipalPolicy",
            "The stack is not deployed yet; its template has been looked at.",
            "Ask again after the deployment.",
        )
        return
    machine = account.client("stepfunctions").describe_state_machine(stateMachineArn=outputs.state_machine_arn)
    values = {
        "partition": outputs.state_machine_arn.split(":")[1],
        "region": account.region,
        "account": account.account_id,
        "project": subject.config.project.name,
        "artifact_bucket": outputs.artifact_bucket,
        "topic": outputs.topic_arn,
    }
    values["lock_table"] = "arn:{partition}:dynamodb:{region}:{account}:table/".format(**values) + outputs.lock_table
    actions = {action for task in subject.tasks().values() for action in needed(task)} - _CONDITIONAL
    iam = account.client("iam")
    for action in sorted(actions):
        service = action.split(":")[0]
        resource = _RESOURCES.get(action, "*").format(**values, service=service)
        answer = iam.simulate_principal_policy(
            PolicySourceArn=machine["roleArn"], ActionNames=[action], ResourceArns=[resource]
        )
        decision = answer["EvaluationResults"][0]["EvalDecision"]
        if decision != "allowed":
            yield error(
                f"The role of the deployed state machine is refused {action} on {resource}: {decision}.",
                machine["roleArn"],
                "An execution fails in the state that needs it; an organisation's policies count too.",
                "kelpie deploy brings the role up to date; else ask who owns the account's policies.",
            )


check_deployed = asking(_check_deployed, "the permissions of the deployed role", "iam:SimulatePrincipalPolicy")
