"""What the Lambda tests share: an AWS account that does not exist, and the context that Lambda passes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends

from lambdas.champion_marker import handler as champion_marker
from lambdas.check_data import handler as check_data
from lambdas.classify import handler as classify
from lambdas.clean_up import handler as clean_up
from lambdas.prune_versions import handler as prune_versions
from lambdas.smoke_test import handler as smoke_test
from lambdas.sweep import handler as sweep

CLIENT_CACHES = (
    champion_marker.s3,
    check_data.s3,
    classify.runtime,
    clean_up.client,
    prune_versions.client,
    smoke_test.runtime,
    smoke_test.s3,
    sweep.client,
)
ROLE = "arn:aws:iam::123456789012:role/kelpie"


@dataclass(frozen=True)
class Context:
    """The part of Lambda's context that is read."""

    function_name: str = "kelpie-under-test"
    memory_limit_in_mb: int = 256
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:kelpie-under-test"
    aws_request_id: str = "6f1c3c1e-0000-4000-8000-000000000000"
    log_group_name: str = "/aws/lambda/kelpie-under-test"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


@pytest.fixture
def context() -> Any:
    return Context()


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Region, no credentials, no clients from an earlier test."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for made in CLIENT_CACHES:
        made.cache_clear()
    yield
    for made in CLIENT_CACHES:
        made.cache_clear()


@pytest.fixture(scope="session")
def session() -> boto3.Session:
    """One session for all tests: each new one would read the service models from disk again."""
    return boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1")


@pytest.fixture
def aws(session: boto3.Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that makes boto3 clients of moto's account, as `boto3.client` now does too."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
    with mock_aws(config={"core": {"mock_credentials": False, "reset_boto3_session": False}}):
        yield session.client


class SageMaker:
    """moto's SageMaker, with the three operations that it lacks and with failures on request.

    `calls` lists the operations that change something; `fail` maps an operation, or an operation and the
    name of one resource, to the error code that it answers.
    """

    def __init__(self) -> None:
        self.client = boto3.client("sagemaker", region_name="us-east-1")
        self.backend: Any = sagemaker_backends["123456789012"]["us-east-1"]
        self.calls: list[str] = []
        self.fail: dict[str, str] = {}

    def __getattr__(self, operation: str) -> Any:
        def call(**parameters: Any) -> Any:
            if not operation.startswith(("describe", "list")):
                self.calls.append(operation)
            code = self.fail.get(operation) or self.fail.get(f"{operation} {next(iter(parameters.values()), '')}")
            if code:
                error = {"Code": code, "Message": f"{operation} is not possible now"}
                raise ClientError({"Error": error}, operation)  # type: ignore[typeddict-item]
            own: Callable[..., Any] | None = getattr(type(self), f"_{operation}", None)
            if own is None:
                return getattr(self.client, operation)(**parameters)
            name = "".join(word.capitalize() for word in operation.split("_"))
            model = self.client.meta.service_model.operation_model(name)
            validate_parameters(parameters, model.input_shape)
            return own(self, **parameters)

        return self.client.get_paginator if operation == "get_paginator" else call

    def _update_endpoint(self, EndpointName: str, EndpointConfigName: str, RetainAllVariantProperties: bool) -> None:
        self.client.describe_endpoint_config(EndpointConfigName=EndpointConfigName)
        endpoint = self.backend.endpoints[EndpointName]
        endpoint.endpoint_config_name, endpoint.endpoint_status = EndpointConfigName, "Updating"

    def _stop_training_job(self, TrainingJobName: str) -> None:
        self.backend.training_jobs[TrainingJobName].training_job_status = "Stopping"

    def _delete_model_package(self, ModelPackageName: str) -> None:
        del self.backend.model_packages[ModelPackageName]

    # What the tests set up

    def make_deployable(self, name: str, model_data_url: str | None = None, instance_type: str = "ml.c5.large") -> None:
        """Create a model and an endpoint config, both called `name`."""
        container = {"Image": "serving", "ModelDataUrl": model_data_url or f"s3://artifacts/{name}/model.tar.gz"}
        self.client.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1}
        self.client.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[{**variant, "InstanceType": instance_type}]
        )

    def make_endpoint(self, config: str, status: str = "InService", failure_reason: str | None = None) -> Any:
        """Create the endpoint `kelpie` and return moto's record of it."""
        self.client.create_endpoint(EndpointName="kelpie", EndpointConfigName=config)
        endpoint = self.backend.endpoints["kelpie"]
        endpoint.endpoint_status, endpoint.failure_reason = status, failure_reason
        return endpoint

    def make_package(
        self, status: str = "Approved", model_data_url: str = "s3://artifacts/x/model.tar.gz", run: str = ""
    ) -> str:
        """Create a version in the group `kelpie` and return its ARN."""
        if "kelpie" not in self.backend.model_package_groups:
            self.client.create_model_package_group(ModelPackageGroupName="kelpie")
        containers = [{"Image": "serving", "ModelDataUrl": model_data_url}]
        answer = self.client.create_model_package(
            ModelPackageGroupName="kelpie",
            ModelApprovalStatus=status,
            InferenceSpecification={"Containers": containers, "SupportedContentTypes": ["image/jpeg"]},
            **({"CustomerMetadataProperties": {"run": run}} if run else {}),
        )
        return str(answer["ModelPackageArn"])

    def make_training_job(self, name: str, status: str) -> None:
        """Create a training job in this state."""
        self.client.create_training_job(
            TrainingJobName=name,
            RoleArn=ROLE,
            AlgorithmSpecification={"TrainingImage": "training", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://artifacts/output"},
            ResourceConfig={"InstanceType": "ml.c5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
        self.backend.training_jobs[name].training_job_status = status


@pytest.fixture
def sagemaker(aws: Any) -> SageMaker:
    return SageMaker()


@pytest.fixture
def lock_table(aws: Any) -> Any:
    """The lock table; the returned function puts an item of strings into it."""
    dynamodb = aws("dynamodb")
    dynamodb.create_table(
        TableName="kelpie-lock",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )

    def put(**attributes: str) -> None:
        item = {key: {"S": value} for key, value in attributes.items()}
        dynamodb.put_item(TableName="kelpie-lock", Item=item)

    return put
