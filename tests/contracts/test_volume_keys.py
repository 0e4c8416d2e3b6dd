"""SageMaker refuses a KMS key for instances with disks of their own, so the definition has none for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambdas.resolve_input.handler import InvalidInput, resolve
from workflow import definition, execution_input
from workflow.config import Config
from workflow.errors import ConfigError

LOCAL, PLAIN = "ml.g5.xlarge", "ml.c5.xlarge"


def settings(training: str, hosting: str) -> Config:
    return Config.model_validate({"training": {"instance_type": training}, "hosting": {"instance_type": hosting}})


def states(training: str, hosting: str) -> dict[str, Any]:
    built: dict[str, Any] = definition.build(settings(training, hosting))["States"]
    return built


def test_volumes_are_encrypted_with_the_projects_key() -> None:
    built = states(PLAIN, PLAIN)
    assert built["CreateEndpointConfig"]["Parameters"]["KmsKeyId"] == "${KmsKeyArn}"
    for name in ("Train", "TrainOnDemand"):
        assert built[name]["Parameters"]["ResourceConfig"]["VolumeKmsKeyId"] == "${KmsKeyArn}"


def test_disks_that_encrypt_themselves_get_no_key() -> None:
    built = states(LOCAL, LOCAL)
    assert "KmsKeyId" not in built["CreateEndpointConfig"]["Parameters"]
    for name in ("Train", "TrainOnDemand"):
        assert "VolumeKmsKeyId" not in json.dumps(built[name])
        assert built[name]["Parameters"]["OutputDataConfig"]["KmsKeyId"] == "${KmsKeyArn}"
    assert built["CreateEndpointConfig"]["Parameters"]["DataCaptureConfig"]["KmsKeyId"] == "${KmsKeyArn}"


def test_training_and_hosting_are_independent_of_each_other() -> None:
    built = states(LOCAL, PLAIN)
    assert "KmsKeyId" in built["CreateEndpointConfig"]["Parameters"]
    assert "VolumeKmsKeyId" not in json.dumps(built["Train"])


@pytest.mark.parametrize("section", ["training", "hosting"])
@pytest.mark.parametrize(("deployed", "given"), [(PLAIN, LOCAL), (LOCAL, PLAIN)])
def test_an_input_cannot_change_the_kind_that_the_definition_was_made_for(
    section: str, deployed: str, given: str
) -> None:
    own = settings(deployed, deployed)
    given_input = {section: {"instance_type": given}}
    with pytest.raises(InvalidInput, match=f"{section}.instance_type.*{given}.*{deployed}.*deploy again"):
        resolve(given_input, own.defaults(), execution_input.execution_input_schema())
    with pytest.raises(ConfigError) as refused:
        execution_input.check_execution_input(given_input, own.defaults())
    assert f"{section}.instance_type = {given!r}" in refused.value.detail
    assert "deploy again" in refused.value.fix


@pytest.mark.parametrize(("deployed", "given"), [(PLAIN, "ml.m5.2xlarge"), (LOCAL, "ml.g4dn.xlarge")])
def test_an_input_may_choose_another_type_of_the_same_kind(deployed: str, given: str) -> None:
    own = settings(deployed, deployed)
    given_input = {"training": {"instance_type": given}, "hosting": {"instance_type": given}}
    execution_input.check_execution_input(given_input, own.defaults())
    merged = resolve(given_input, own.defaults(), execution_input.execution_input_schema())
    assert merged["hosting"]["instance_type"] == given
