"""The training job in the rendered state: what the SDK drops without a word must be there."""

from __future__ import annotations

import functools
import json
import re
import sys
from typing import Any

import pytest
import yaml

from workflow import definition
from workflow.config import Config
from workflow.execution_input import TrainingSettings
from workflow.sdk import guarded
from workflow.training_job import GATE_HYPERPARAMETERS, HYPERPARAMETERS, METRICS


@functools.cache
def built(settings: str) -> dict[str, Any]:
    states: dict[str, Any] = definition.build(Config.model_validate_json(settings))["States"]
    return states


def states(**settings: Any) -> dict[str, Any]:
    return built(json.dumps(settings))


def train(**settings: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = states(**settings)["Train"]["Parameters"]
    return parameters


VPC = {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}


def test_checkpoints_have_an_s3_uri_and_a_local_path() -> None:
    expected = {"S3Uri.$": "$.names.checkpoint_s3_uri", "LocalPath": "/opt/ml/checkpoints"}
    assert train()["CheckpointConfig"] == expected


def test_both_ways_of_training_share_their_checkpoints() -> None:
    assert states()["TrainOnDemand"]["Parameters"]["CheckpointConfig"] == train()["CheckpointConfig"]


def test_the_environment_is_there() -> None:
    assert train()["Environment"]["PYTHONUNBUFFERED"] == "1"


def test_training_and_serving_are_isolated_from_the_network() -> None:
    assert train()["EnableNetworkIsolation"] is True
    assert states()["CreateModel"]["Parameters"]["EnableNetworkIsolation"] is True


def test_the_vpc_is_there_when_it_is_configured() -> None:
    expected = {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert train(vpc=VPC)["VpcConfig"] == expected
    assert states(vpc=VPC)["CreateModel"]["Parameters"]["VpcConfig"] == expected
    assert "VpcConfig" not in train()


def test_the_stacks_own_vpc_comes_by_substitution() -> None:
    own = {"create": True}
    expected = {"Subnets": ["${PrivateSubnetA}", "${PrivateSubnetB}"], "SecurityGroupIds": ["${TrainingSecurityGroup}"]}
    assert train(vpc=own)["VpcConfig"] == expected
    assert states(vpc=own)["TrainOnDemand"]["Parameters"]["VpcConfig"] == expected
    assert states(vpc=own)["CreateModel"]["Parameters"]["VpcConfig"] == expected
    assert "VpcConfig" not in states()["CreateModel"]["Parameters"]


def test_everything_that_is_stored_is_encrypted_with_our_key() -> None:
    assert train()["OutputDataConfig"]["KmsKeyId"] == "${KmsKeyArn}"
    assert train()["ResourceConfig"]["VolumeKmsKeyId"] == "${KmsKeyArn}"
    endpoint_config = states()["CreateEndpointConfig"]["Parameters"]
    assert endpoint_config["KmsKeyId"] == "${KmsKeyArn}"
    assert endpoint_config["DataCaptureConfig"]["KmsKeyId"] == "${KmsKeyArn}"
    assert endpoint_config["DataCaptureConfig"]["EnableCapture"] is True


def test_the_job_is_tagged_with_its_project_and_run() -> None:
    assert train()["Tags"] == [
        {"Key": "kelpie:project", "Value": "kelpie"},
        {"Key": "kelpie:run", "Value.$": "$.names.run"},
    ]


def test_spot_is_switched_on_as_a_boolean_with_a_longest_wait() -> None:
    assert train()["EnableManagedSpotTraining"] is True
    assert "MaxWaitTimeInSeconds.$" in train()["StoppingCondition"]


def test_training_on_demand_has_neither() -> None:
    on_demand = states()["TrainOnDemand"]["Parameters"]
    assert "EnableManagedSpotTraining" not in on_demand
    assert set(on_demand["StoppingCondition"]) == {"MaxRuntimeInSeconds.$"}


def test_the_code_comes_by_channel_because_an_isolated_container_cannot_fetch_it() -> None:
    channels = {channel["ChannelName"]: channel["DataSource"]["S3DataSource"] for channel in train()["InputDataConfig"]}
    assert set(channels) == {"data", "champion", "weights", "wheels", "code"}
    assert channels["code"]["S3Uri"] == "${CodeChannelUri}"
    assert {source["S3DataDistributionType"] for source in channels.values()} == {"FullyReplicated"}
    hyperparameters = train()["HyperParameters"]
    assert hyperparameters["sagemaker_submit_directory"] == "/opt/ml/input/data/code/sourcedir.tar.gz"
    assert hyperparameters["sagemaker_program"] == "train.py"


def test_no_name_is_frozen_into_the_hyperparameters() -> None:
    assert "sagemaker_job_name" not in train()["HyperParameters"]


def test_every_setting_of_training_itself_is_a_hyperparameter() -> None:
    about_machines = {
        *("instance_type", "instance_count", "volume_size_gb", "managed_spot"),
        *("max_runtime_seconds", "max_spot_wait_seconds"),
    }
    assert set(HYPERPARAMETERS) == set(TrainingSettings.model_fields) - about_machines
    flags = {key.removesuffix(".$") for key in train()["HyperParameters"] if not key.startswith("sagemaker_")}
    assert flags == {name.replace("_", "-") for name in (*HYPERPARAMETERS, *GATE_HYPERPARAMETERS)}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", ["0.9666666666666667", "1e-05", "3", "1.5E+10"])
def test_metrics_are_read_from_the_lines_that_training_prints(metric: str, value: str) -> None:
    line = f"epoch=1 step=24 {metric}={value}"
    found = {
        one["Name"]: re.findall(one["Regex"], line) for one in train()["AlgorithmSpecification"]["MetricDefinitions"]
    }
    assert found == {name: [value] if name == metric else [] for name in METRICS}


def test_the_sdk_changes_nothing_in_the_process_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    hook, representers = sys.excepthook, dict(yaml.SafeDumper.yaml_representers)
    with guarded():
        sys.excepthook = lambda *_: None
        yaml.add_representer(bytes, lambda *_: None, Dumper=yaml.SafeDumper)
        print("noise")
    assert sys.excepthook is hook
    assert dict(yaml.SafeDumper.yaml_representers) == representers
    assert capsys.readouterr().out == ""


def test_yaml_is_written_as_if_the_sdk_were_not_there() -> None:
    assert yaml.safe_dump({"text": "one\ntwo\n"}) == "text: 'one\n\n  two\n\n  '\n"
