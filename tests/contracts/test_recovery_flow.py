"""Resume and rollback in the state machine: what they take over, what they skip, and what they must never mix."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import pytest
from contracts.test_definition_flow import (
    DENIED,
    FIRST_DEPLOYMENT,
    SERVING,
    SETTLE,
    STATES,
    WAY_BACK,
    Run,
    complaints,
    defaults,
    first_deployment,
    run,
)

from workflow.training_job import GATE_HYPERPARAMETERS, HYPERPARAMETERS

RUN = "0a" * 16
JOB = f"kelpie-{RUN}-1"
VERSION = "arn:aws:sagemaker:us-east-1:123456789012:model-package/kelpie/3"
CHECKPOINTS = f"s3://artifactbucket/checkpoints/{RUN}/"
FOLDER = f"s3://artifactbucket/runs/{RUN}/output"

# Resume

LOOK = ["ReadServing", "ChampionKnown?", "NoChampionYet", "FingerprintTraining", "ResumeTraining?"]
LOOK_AT_JOB = [*LOOK, "DescribeEarlierTraining", "EarlierTrainingUsable?"]
TRAIN = ["UseSpot?", "Train", "SpotTrainingCompleted?", "NameArtifacts", "QualityGate"]


def earlier(status: str = "Completed", **changes: Any) -> dict[str, Any]:
    """What DescribeTrainingJob answers about a job with this execution's fingerprints."""
    environment = first_deployment().parameters["Train"]["Environment"]
    return {
        "TrainingJobName": JOB,
        "TrainingJobStatus": status,
        "Environment": environment | changes.pop("Environment", {}),
        "CheckpointConfig": {"S3Uri": CHECKPOINTS},
        "OutputDataConfig": {"S3OutputPath": FOLDER},
        "ModelArtifacts": {"S3ModelArtifacts": f"{FOLDER}/{JOB}/output/model.tar.gz"},
        **changes,
    }


def resume(job: dict[str, Any] | None = None, raises: dict[str, dict[str, str]] | None = None, **answers: Any) -> Run:
    data = copy.deepcopy(first_deployment().data_at["ReadServing"])
    data["settings"]["resume"] = {"training_job": JOB}
    answers |= {"DescribeEarlierTraining": job} if job else {}
    return run(answers, raises, start="ReadServing", stop="QualityGate", input_text=json.dumps(data))


def test_a_finished_job_that_learned_the_same_is_not_repeated() -> None:
    resumed = resume(earlier())
    assert resumed.path == [*LOOK_AT_JOB, "UseEarlierTraining", "NameEarlierArtifacts", "QualityGate"]
    assert resumed.end["train"] == earlier()
    assert resumed.end["artifacts"] == {
        "model_s3_uri": f"{FOLDER}/{JOB}/output/model.tar.gz",
        "evidence_s3_uri": f"{FOLDER}/{JOB}/output/output.tar.gz",
        "serving_image": "servingimage",
        "program": "",
    }
    assert resumed.parameters["DescribeEarlierTraining"] == {"TrainingJobName": JOB}
    assert complaints("DescribeEarlierTraining", {"TrainingJobName": JOB}) == ""


@pytest.mark.parametrize(
    ("status", "compared_with"),
    [("Stopped", "none"), ("Failed", "none"), ("Completed", VERSION)],
    ids=["stopped", "failed", "completed, but compared with another champion"],
)
def test_a_job_that_learned_the_same_is_gone_on_from_at_its_checkpoints(status: str, compared_with: str) -> None:
    resumed = resume(earlier(status, Environment={"KELPIE_CHAMPION": compared_with}))
    assert resumed.path == [*LOOK_AT_JOB, "UseEarlierCheckpoints", *TRAIN]
    sent = resumed.parameters["Train"]
    assert sent["CheckpointConfig"]["S3Uri"] == CHECKPOINTS
    assert sent["TrainingJobName"] == first_deployment().parameters["Train"]["TrainingJobName"]
    assert resumed.end["warnings"] == {}
    assert complaints("Train", sent) == ""


@pytest.mark.parametrize(
    ("status", "environment"),
    [("Completed", {"KELPIE_FINGERPRINT": "0" * 64}), ("Stopped", None)],
    ids=["other", "unknown"],
)
def test_what_was_learned_from_other_data_code_or_settings_is_not_mixed_in(
    status: str, environment: dict[str, str] | None
) -> None:
    job = earlier(status, Environment=environment) if environment else earlier(status)
    if environment is None:
        del job["Environment"]
    resumed = resume(job)
    assert resumed.path == [*LOOK_AT_JOB, "NoteTrainingAfresh", *TRAIN]
    assert resumed.parameters["Train"] == first_deployment().parameters["Train"]
    assert f"{JOB} ({status})" in resumed.end["warnings"]["ResumeTraining"]["Cause"]


def test_a_job_that_cannot_be_found_is_a_warning() -> None:
    resumed = resume(raises={"DescribeEarlierTraining": DENIED})
    assert resumed.path == [*LOOK_AT_JOB[:-1], *TRAIN]
    assert resumed.end["warnings"] == {"DescribeEarlierTraining": DENIED}
    assert resumed.parameters["Train"] == first_deployment().parameters["Train"]


def test_no_two_jobs_write_to_the_same_checkpoints() -> None:
    resumed = resume(earlier("Stopping"))
    lap = ["CountEarlierLap", "WaitForEarlierTraining", "DescribeEarlierTraining", "EarlierTrainingUsable?"]
    assert resumed.path == [*LOOK_AT_JOB, *lap * 3, "NoteTrainingAfresh", *TRAIN]
    assert (
        resumed.parameters["Train"]["CheckpointConfig"] == (first_deployment().parameters["Train"]["CheckpointConfig"])
    )


def test_a_job_remembers_the_champion_that_its_model_was_compared_with() -> None:
    item = {"Item": {"pk": {"S": "kelpie#serving"}, "model_package_arn": {"S": VERSION}}}
    trained = resume(earlier("Stopped"), ReadServing=item)
    assert trained.path[:3] == ["ReadServing", "ChampionKnown?", "FingerprintTraining"]
    assert trained.parameters["Train"]["Environment"]["KELPIE_CHAMPION"] == VERSION
    assert first_deployment().parameters["Train"]["Environment"]["KELPIE_CHAMPION"] == "none"


def fingerprint(**changes: dict[str, Any]) -> str:
    """The fingerprint with some values of the state data changed."""
    data = copy.deepcopy(first_deployment().data_at["FingerprintTraining"])
    data["data"] |= changes.pop("data", {})
    for section, values in changes.items():
        data["settings"][section] |= values
    ended = run(start="FingerprintTraining", stop="ResumeTraining?", input_text=json.dumps(data)).end
    return str(ended["fingerprint"]["training"])


@functools.cache
def own_fingerprint() -> str:
    return str(first_deployment().parameters["Train"]["Environment"]["KELPIE_FINGERPRINT"])


def test_what_makes_another_model_makes_another_fingerprint() -> None:
    assert len(own_fingerprint()) == 64
    made = {
        own_fingerprint(),
        fingerprint(data={"manifest_sha256": "cd" * 32}),
        fingerprint(training={"epochs": 4}),
        fingerprint(training={"learning_rate": 0.5}),
        fingerprint(training={"seed": 1}),
    }
    assert len(made) == 5


def test_where_and_how_long_training_runs_makes_no_other_fingerprint() -> None:
    machines = {"instance_type": "ml.g5.xlarge", "instance_count": 1, "managed_spot": False, "max_runtime_seconds": 99}
    assert fingerprint(training=machines, gate={"min_test_accuracy": 0.1}, data={"s3_uri": "x"}) == own_fingerprint()


def test_every_setting_of_training_the_code_the_weights_and_the_image_are_in_the_fingerprint() -> None:

    expression = STATES["FingerprintTraining"]["Parameters"]["training.$"]
    for part in (
        *HYPERPARAMETERS,
        *GATE_HYPERPARAMETERS,
        "${TrainingImage}",
        "${CodeChannelUri}",
        "${WeightsChannelUri}",
    ):
        assert part in expression


# Rollback

BRING_BACK = ["RollBack?", "DescribeVersion", "VersionApproved?"]
TAKE = ["TakeContainer", "TakeArtifacts", "TakeVerdict", "TakeVersion"]
REGISTERED = {
    "ModelPackageArn": VERSION,
    "ModelPackageGroupName": "modelpackagegroup",
    "ModelApprovalStatus": "Approved",
    "InferenceSpecification": {
        "Containers": [
            {
                "Image": "image-of-then",
                "ModelDataUrl": f"{FOLDER}/{JOB}/output/model.tar.gz",
                "Environment": {"SAGEMAKER_PROGRAM": "inference/program_of_then.py"},
            }
        ]
    },
    "CustomerMetadataProperties": {
        "run": RUN,
        "test_accuracy": "0.9666666666666667",
        "evidence_s3_uri": f"{FOLDER}/{JOB}/output/output.tar.gz",
    },
}


@functools.cache
def rolled_back() -> Run:
    settings = defaults()
    settings["rollback"]["model_package_arn"] = VERSION
    answers = {"ResolveInput": {"Payload": settings}, "DescribeVersion": REGISTERED, "DescribeEndpoint": SERVING}
    return run(answers)


def test_a_rollback_goes_the_safe_path_of_a_new_model_without_training_one() -> None:
    hosted = [*SETTLE, "AcquireLock", *BRING_BACK, *TAKE, "CreateModel", "CreateEndpointConfig"]
    path = rolled_back().path
    assert path[: len(hosted)] == hosted
    waited = path.index("StartWaiting")
    assert path[waited - 1] == "UpdateEndpoint"
    assert path[waited:] == FIRST_DEPLOYMENT[FIRST_DEPLOYMENT.index("StartWaiting") :]


def test_a_rollback_hosts_the_archive_of_that_version_in_the_image_of_that_version() -> None:
    sent = rolled_back().parameters
    container = sent["CreateModel"]["PrimaryContainer"]
    assert (container["Image"], container["ModelDataUrl"]) == (
        "image-of-then",
        f"{FOLDER}/{JOB}/output/model.tar.gz",
    )
    assert container["Environment"]["SAGEMAKER_PROGRAM"] == "inference/program_of_then.py"
    assert sent["SmokeTest"]["Payload"]["evidence_s3_uri"] == f"{FOLDER}/{JOB}/output/output.tar.gz"
    assert sent["KeepChampion"]["CopySource"] == f"artifactbucket/runs/{RUN}/output/{JOB}/output/model.tar.gz"
    assert sent["RecordServing"]["Item"]["model_package_arn"] == {"S": VERSION}
    assert sent["ApproveVersion"]["ModelPackageArn"] == VERSION
    for name in ("DescribeVersion", "CreateModel", "RecordServing", "ApproveVersion", "KeepChampion"):
        assert complaints(name, sent[name]) == ""


def test_a_program_of_ones_own_is_named_to_the_server_and_kept_with_the_version() -> None:
    settings = defaults()
    settings["hosting"]["program"] = "inference/own.py"
    sent = run({"ResolveInput": {"Payload": settings}}).parameters
    assert sent["CreateModel"]["PrimaryContainer"]["Environment"]["SAGEMAKER_PROGRAM"] == "inference/own.py"
    (container,) = sent["RegisterVersion"]["InferenceSpecification"]["Containers"]
    assert container["Environment"] == {"SAGEMAKER_PROGRAM": "inference/own.py"}
    assert complaints("CreateModel", sent["CreateModel"]) == ""
    assert complaints("RegisterVersion", sent["RegisterVersion"]) == ""


def test_what_is_said_of_a_rollback_is_true() -> None:
    message = rolled_back().parameters["NotifySuccess"]["Message"]
    assert VERSION in message
    assert f"Test accuracy 0.9666666666666667 (run {RUN} passed the quality gate)" in message
    description = rolled_back().parameters["ApproveVersion"]["ApprovalDescription"]
    assert description.endswith(f"passed the smoke test; run {RUN} passed the quality gate.")


def test_a_new_models_archive_becomes_the_champion() -> None:
    artifacts = first_deployment().end["artifacts"]
    source = first_deployment().parameters["KeepChampion"]["CopySource"]
    assert f"s3://{source}" == artifacts["model_s3_uri"]


@pytest.mark.parametrize(
    "changes",
    [
        {"ModelApprovalStatus": "Rejected"},
        {"ModelApprovalStatus": "PendingManualApproval"},
        {"ModelPackageGroupName": "another"},
        {"CustomerMetadataProperties": {"run": RUN}},
    ],
)
def test_only_an_approved_version_of_this_project_is_brought_back(changes: dict[str, Any]) -> None:
    data = copy.deepcopy(first_deployment().data_at["RollBack?"])
    data["settings"]["rollback"]["model_package_arn"] = VERSION
    answers = {"DescribeVersion": {**REGISTERED, **changes}}
    refused = run(answers, start="DescribeVersion", stop="CreateModel", input_text=json.dumps(data))
    assert refused.path == [*BRING_BACK[1:], "VersionNotApproved", *WAY_BACK]
    failed = refused.end["failed"]["DescribeVersion"]
    assert failed["Error"] == "VersionNotApproved"
    assert failed["Cause"].startswith(f"Version {VERSION} is {changes.get('ModelApprovalStatus', 'Approved')}: ")


def test_a_version_is_registered_with_what_a_rollback_to_it_needs() -> None:
    sent = first_deployment().parameters["RegisterVersion"]
    assert set(sent["CustomerMetadataProperties"]) >= set(REGISTERED["CustomerMetadataProperties"])
    longest = f"s3://{'b' * 63}/runs/{RUN}/output/{'p' * 24}-{RUN}-9/output/output.tar.gz"
    assert len(longest) <= 256, "CustomerMetadataValue, botocore's sagemaker service model"
