"""SageMaker's APIs with real work behind them: the operations that moto lacks, and where the engine is hooked in."""

from __future__ import annotations

from typing import Any

import moto.sagemaker.urls
import moto.sagemakerruntime.urls
from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.models import sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from workflow.local import faults, router
from workflow.local.engine import Engine
from workflow.local.sagemaker_backend import LocalSageMakerBackend

HOOKS: tuple[str, ...] = (
    *faults.HOOKS,
    *router.HOOKS,
    "moto.sagemaker.models.sagemaker_backends",
    "moto.sagemaker.models.FakeEndpointConfig",
    "moto.sagemaker.models.FakeEndpointConfig.validate_instance_type",
    "moto.sagemaker.models.FakeTrainingJob",
    "moto.sagemaker.models.SageMakerModelBackend",
    "moto.sagemaker.models.SageMakerModelBackend._url_module",
    "moto.sagemaker.models.SageMakerModelBackend.create_endpoint",
    "moto.sagemaker.models.SageMakerModelBackend.create_model_package",
    "moto.sagemaker.models.SageMakerModelBackend.create_training_job",
    "moto.sagemaker.models.SageMakerModelBackend.delete_endpoint",
    "moto.sagemaker.models.SageMakerModelBackend.reset",
    "moto.sagemaker.models.SageMakerModelBackend.update_model_package",
    "moto.sagemaker.responses.SageMakerResponse.create_model",
    "moto.sagemaker.responses.SageMakerResponse.create_training_job",
    "moto.sagemaker.urls.url_paths",
    "moto.sagemakerruntime.responses.SageMakerRuntimeResponse",
    "moto.sagemakerruntime.responses.SageMakerRuntimeResponse.invoke_endpoint",
    "moto.sagemakerruntime.urls.url_paths",
)


class LocalSageMakerResponse(SageMakerResponse):
    """moto's operations, and those that it lacks."""

    @property
    def _local(self) -> LocalSageMakerBackend:
        backend = self.sagemaker_backend
        assert isinstance(backend, LocalSageMakerBackend)
        return backend

    def create_training_job(self) -> ActionResult:
        """CreateTrainingJob."""
        return ActionResult({"TrainingJobArn": self._local.start_training_job(self._get_params())})

    def stop_training_job(self) -> ActionResult:
        """StopTrainingJob."""
        self._local.stop_training_job(self._get_param("TrainingJobName"))
        return EmptyResult()

    def create_model(self) -> ActionResult:
        """CreateModel."""
        return ActionResult({"ModelArn": self._local.add_model(self._get_params())})

    def update_endpoint(self) -> ActionResult:
        """UpdateEndpoint."""
        return ActionResult({"EndpointArn": self._local.update_endpoint(self._get_params())})

    def delete_model_package(self) -> ActionResult:
        """DeleteModelPackage."""
        self._local.delete_model_package(self._get_param("ModelPackageName"))
        return EmptyResult()

    def delete_model_package_group(self) -> ActionResult:
        """DeleteModelPackageGroup."""
        self._local.delete_model_package_group(self._get_param("ModelPackageGroupName"))
        return EmptyResult()


class LocalRuntimeResponse(SageMakerRuntimeResponse):
    """InvokeEndpoint reaches the servers; the body is any bytes."""

    use_raw_body = True

    def invoke_endpoint(self) -> Any:
        """InvokeEndpoint."""
        backend = sagemaker_backends[self.current_account][self.region]
        assert isinstance(backend, LocalSageMakerBackend)
        name = self.parsed_url.path.split("/")[2]
        answer = backend.live_endpoints.router.invoke(name, self.raw_body, dict(self.headers.items()))
        return answer.status, {**answer.headers, "status": answer.status}, answer.body


def install(engine: Engine) -> None:
    """Put the engine behind moto's SageMaker, before its first use."""
    LocalSageMakerBackend.engine = engine
    sagemaker_backends.backend = LocalSageMakerBackend
    moto.sagemaker.urls.url_paths["{0}/$"] = LocalSageMakerResponse.dispatch
    for path in moto.sagemakerruntime.urls.url_paths:
        moto.sagemakerruntime.urls.url_paths[path] = LocalRuntimeResponse.dispatch
