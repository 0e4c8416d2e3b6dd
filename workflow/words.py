"""The words that the definition is written in: kinds of states and rules that occur in it again and again."""

from __future__ import annotations

from typing import Any

from workflow.sdk import ChoiceRule, Expr, LambdaStep, Pass, Retry, Task

# Throttling has no name of its own in most integrations: it arrives under the service's generic error, so that is
# retried too, although it also stands for mistakes that will not go away (they then fail half a minute later).
# Source: AWS Step Functions developer guide, "Integrating with SageMaker AI" and "AWS SDK integrations", 2026-11.
THROTTLED = {
    "sagemaker": [
        "SageMaker.AmazonSageMakerException",
        "SageMaker.SageMakerException",
        "SageMaker.ThrottlingException",
        "ThrottlingException",
    ],
    "applicationautoscaling": [
        "ApplicationAutoScaling.ApplicationAutoScalingException",
        "ApplicationAutoScaling.ConcurrentUpdateException",
        "ApplicationAutoScaling.InternalServiceException",
    ],
    "dynamodb": ["DynamoDB.ProvisionedThroughputExceededException", "DynamoDB.ThrottlingException"],
    "s3": ["S3.S3Exception"],
    "sfn": ["Sfn.SfnException"],
    "sns": ["SNS.ThrottledException"],
    "lambda": [
        "Lambda.AWSLambdaException",
        "Lambda.SdkClientException",
        "Lambda.ServiceException",
        "Lambda.TooManyRequestsException",
    ],
}


def lambda_step(state_id: str, function: str, payload: dict[str, Any], *, seconds: int, **fields: Any) -> LambdaStep:
    """Invoke one of our functions."""
    fields.setdefault("retry", retry("lambda"))
    return LambdaStep(
        state_id,
        parameters={"FunctionName": f"${{{function}FunctionArn}}", "Payload": payload},
        timeout_seconds=seconds,
        **fields,
    )


def sdk_step(state_id: str, api: str, parameters: dict[str, Any], *, seconds: int = 60, **fields: Any) -> Task:
    """Call an API that the SDK has no step class for, named as in `service:action`."""
    fields.setdefault("retry", retry(api.split(":")[0]))
    return Task(
        state_id,
        resource=f"arn:aws:states:::aws-sdk:{api}",
        parameters=parameters,
        timeout_seconds=seconds,
        **fields,
    )


def retry(service: str) -> Retry:
    """Wait and try again when the service is busy; nothing else is worth repeating."""
    return Retry(error_equals=THROTTLED[service], interval_seconds=5, max_attempts=3, backoff_rate=2.0)


def payload_of(*keys: str) -> dict[str, Expr]:
    """Take these keys out of a function's answer."""
    return {key: Expr(f"$.Payload.{key}") for key in keys}


def failure(state_id: str, where: str, error: str, cause: Expr | str, comment: str) -> Pass:
    """Give a failure that no Task raised a name, as if the state `where` had raised it."""
    return Pass(
        state_id,
        parameters={"Error": error, "Cause": cause},
        result_path=f"$.failed.{where}",
        comment=comment,
    )


def text(template: str, *values: str) -> Expr:
    """Fill a text's `{}` when the execution runs."""
    return Expr(f"States.Format('{template}', {', '.join(values)})")


def known(variable: str, rule: ChoiceRule) -> ChoiceRule:
    """The rule, only where there is such a variable: without it, a missing one would end the execution uncaught."""
    return ChoiceRule.And([ChoiceRule.IsPresent(variable, True), rule])


def one_of(variable: str, values: tuple[str, ...]) -> ChoiceRule:
    return ChoiceRule.Or([ChoiceRule.StringEquals(variable, value) for value in values])
