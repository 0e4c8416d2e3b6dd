"""The Step Functions Data Science SDK, imported without its side effects, and taught what version 2.3.0 lacks.

Importing `stepfunctions` takes seconds, imports the SageMaker SDK (which replaces `sys.excepthook`, warns, and later
logs to stdout), and changes how `yaml.SafeDumper` writes strings for the whole process. So it is imported here only,
inside `guarded()`, and the command line imports this module only when it needs a definition.

2.3.0 knows neither ResultSelector nor ErrorPath and CausePath, and it writes the ARNs of integrations for whatever
partition the environment happens to name; the classes below put that right.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import boto3
import yaml

NO_ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "unused",
    "AWS_SECRET_ACCESS_KEY": "unused",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "SAGEMAKER_SUPPRESS_V2_WARNING": "1",
}
"""The environment that the SDKs see. Their import makes a client, which would look for credentials on the network."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Run code of the SDKs without an account, and without letting it print to stdout, warn, or change the process."""
    excepthook, representers = sys.excepthook, dict(yaml.SafeDumper.yaml_representers)
    disabled_logging, session = logging.root.manager.disable, boto3.DEFAULT_SESSION
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    try:
        with (
            mock.patch.dict(os.environ, inherited | NO_ACCOUNT, clear=True),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sys.stderr),
        ):
            warnings.simplefilter("ignore")
            logging.disable(logging.INFO)
            yield
    finally:
        sys.excepthook = excepthook
        yaml.SafeDumper.yaml_representers = representers
        logging.disable(disabled_logging)
        boto3.DEFAULT_SESSION = session


with guarded():
    from stepfunctions import steps  # type: ignore[import-untyped]
    from stepfunctions.inputs import Placeholder  # type: ignore[import-untyped]
    from stepfunctions.steps import (  # type: ignore[import-untyped]
        Catch,
        Chain,
        Choice,
        ChoiceRule,
        Graph,
        Pass,
        Retry,
        Succeed,
        Wait,
        integration_resources,
    )
    from stepfunctions.steps.states import State  # type: ignore[import-untyped]

# It would make three boto3 sessions for every step, to find the partition of whatever Region the environment names.
integration_resources.get_aws_partition = lambda: "aws"

__all__ = [
    "Catch",
    "Chain",
    "Choice",
    "ChoiceRule",
    "DynamoDBGetItemStep",
    "DynamoDBPutItemStep",
    "DynamoDBUpdateItemStep",
    "EndpointConfigStep",
    "EndpointStep",
    "Expr",
    "Fail",
    "Graph",
    "LambdaStep",
    "ModelStep",
    "Pass",
    "Retry",
    "SnsPublishStep",
    "State",
    "Succeed",
    "Task",
    "TrainingStep",
    "Wait",
    "guarded",
]


class Expr(Placeholder):  # type: ignore[misc]
    """A JSONPath or an intrinsic where the SDK takes a placeholder: the key it stands under becomes `Key.$`.

    The SDK's own placeholders can name the input of the state only, not the context object or an intrinsic.
    """

    def __init__(self, expression: str) -> None:
        super().__init__()
        self.expression = expression

    def to_jsonpath(self) -> str:
        return self.expression


class _Complete:
    """Adds to a step class the `result_selector` field and ARNs that hold in every partition."""

    result_selector: dict[str, Any] | None

    def __init__(self, state_id: str, *args: Any, **fields: Any) -> None:
        self.result_selector = fields.pop("result_selector", None)
        super().__init__(state_id, *args, **fields)  # type: ignore[call-arg]

    def to_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        state["Resource"] = re.sub(r"^arn:[a-z-]+:", "arn:${Partition}:", state["Resource"])
        if self.result_selector is not None:
            state["ResultSelector"] = self._replace_placeholders(self.result_selector)  # type: ignore[attr-defined]
        return state


class Task(_Complete, steps.Task):  # type: ignore[misc]
    """A Task for an API that the SDK has no step class for."""


class LambdaStep(_Complete, steps.LambdaStep):  # type: ignore[misc]
    """Invokes a Lambda function; its result is under `Payload`."""


class TrainingStep(_Complete, steps.TrainingStep):  # type: ignore[misc]
    """Runs a training job and waits for its end."""


class ModelStep(_Complete, steps.ModelStep):  # type: ignore[misc]
    """Creates a model."""


class EndpointConfigStep(_Complete, steps.EndpointConfigStep):  # type: ignore[misc]
    """Creates an endpoint config. It ignores `parameters=`: edit `fields["parameters"]` afterwards."""


class EndpointStep(_Complete, steps.EndpointStep):  # type: ignore[misc]
    """Creates an endpoint."""


class DynamoDBGetItemStep(_Complete, steps.DynamoDBGetItemStep):  # type: ignore[misc]
    """Reads one item."""


class DynamoDBPutItemStep(_Complete, steps.DynamoDBPutItemStep):  # type: ignore[misc]
    """Writes one item."""


class DynamoDBUpdateItemStep(_Complete, steps.DynamoDBUpdateItemStep):  # type: ignore[misc]
    """Changes parts of one item."""


class SnsPublishStep(_Complete, steps.SnsPublishStep):  # type: ignore[misc]
    """Sends a notification."""


class Fail(steps.Fail):  # type: ignore[misc]
    """Ends the execution with an error and a cause that are read from the state data."""

    def __init__(self, state_id: str, error_path: str, cause_path: str, **fields: Any) -> None:
        self.error_path, self.cause_path = error_path, cause_path
        super().__init__(state_id, **fields)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "ErrorPath": self.error_path, "CausePath": self.cause_path}
