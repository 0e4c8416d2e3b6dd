"""Training jobs of the local cloud: real programs in real processes, seen through SageMaker's API."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import World, channel, wait_until
from workflow.local import cloud

REPORT = textwrap.dedent("""
    import json, os, pathlib, sys
    base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
    report = {
        "argv": sys.argv[1:],
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "files": sorted(str(p.relative_to(base)) for p in base.rglob("*") if p.is_file()),
        "hosts": json.loads((base / "input/config/resourceconfig.json").read_text()),
    }
    host = os.environ["SM_CURRENT_HOST"]
    pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], f"{host}.json").write_text(json.dumps(report))
    pathlib.Path(os.environ["SM_MODEL_DIR"], f"from-{host}.txt").write_text(host)
""")

# Writes a checkpoint every few hundredths of a second, the way a careful trainer does, and resumes from the newest.
CHECKPOINTING = textwrap.dedent("""
    import json, os, pathlib, sys, time
    checkpoints = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"], "checkpoints")
    host = os.environ["SM_CURRENT_HOST"]
    found = sorted(int(p.stem.split("-")[1]) for p in checkpoints.glob("step-*.ckpt"))
    start = found[-1] if found else 0
    print(f"host={host} pid={os.getpid()} resumed_step={start}", flush=True)
    for step in range(start + 1, 13):
        time.sleep(0.15)
        if host == "algo-1" and step % 3 == 0:
            temporary = checkpoints / f"step-{step:04d}.ckpt.tmp"
            temporary.write_text("half")
            time.sleep(0.15)
            temporary.write_text("whole" * 1000)
            temporary.rename(checkpoints / f"step-{step:04d}.ckpt")
            for old in sorted(checkpoints.glob("step-*.ckpt"))[:-2]:
                old.unlink()
    data = {"resumed_step": start, "pid": os.getpid()}
    pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], f"{host}.json").write_text(json.dumps(data))
""")

SLEEPING = "import time\nprint('ready', flush=True)\ntime.sleep(60)"


def two_hosts(**changes: Any) -> dict[str, Any]:
    return {
        "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 5},
        **changes,
    }


def spot(world: World) -> dict[str, Any]:
    return {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
        "CheckpointConfig": {"S3Uri": f"s3://{world.bucket}/checkpoints-{uuid.uuid4().hex[:8]}/"},
    }


def output(world: World, job: dict[str, Any], host: str = "algo-1") -> dict[str, Any]:
    uri = job["ModelArtifacts"]["S3ModelArtifacts"].replace("model.tar.gz", "output.tar.gz")
    return json.loads(world.archive_of(uri)[f"{host}.json"])


def log_lines(world: World, job: dict[str, Any]) -> list[str]:
    events = world.client("logs").filter_log_events(
        logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix=job["TrainingJobName"] + "/"
    )["events"]
    return [event["message"] for event in events if event["logStreamName"].startswith(job["TrainingJobName"])]


def pid_of(world: World, name: str) -> int:
    def find() -> int | None:
        processes = world.connection.control("GET", "status")["processes"]
        return next((each["pid"] for each in processes if each["name"] == name), None)

    return wait_until(find)


def test_the_program_finds_what_the_training_toolkit_gives_it(world: World) -> None:
    job = world.train(REPORT, {"batch-size": 8, "deep": True, "name": "a b"}, Environment={"MINE": "yes"})
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    report = output(world, job)
    assert report["argv"] == ["--batch-size", "8", "--deep", "True", "--name", "a b"]
    env = report["env"]
    assert env["MINE"] == "yes"
    assert env["SM_HOSTS"] == '["algo-1"]'
    assert json.loads(env["SM_HPS"]) == {"batch-size": 8, "deep": True, "name": "a b"}
    assert env["SM_CHANNEL_DATA"].endswith("/opt/ml/input/data/data")
    assert env["TRAINING_JOB_NAME"] == job["TrainingJobName"]
    assert report["cwd"].endswith("/opt/ml/code")
    assert {"input/data/data/a/1.txt", "input/data/data/b/2.txt"} <= set(report["files"])


def test_hosts_have_their_own_trees_and_their_results_are_merged(world: World) -> None:
    job = world.train(REPORT, **two_hosts())
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    first, second = output(world, job, "algo-1"), output(world, job, "algo-2")
    assert first["env"]["SAGEMAKER_BASE_DIR"] != second["env"]["SAGEMAKER_BASE_DIR"]
    assert first["env"]["MASTER_PORT"] == second["env"]["MASTER_PORT"]
    assert second["hosts"]["current_host"] == "algo-2"
    model = world.archive_of(job["ModelArtifacts"]["S3ModelArtifacts"])
    assert sorted(model) == ["from-algo-1.txt", "from-algo-2.txt"]


def test_the_program_acts_as_the_execution_role_and_only_without_network_isolation(world: World) -> None:
    env = output(world, world.train(REPORT))["env"]
    assert env["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert env["AWS_ENDPOINT_URL"] == world.connection.endpoint_url
    isolated = world.train(REPORT, EnableNetworkIsolation=True)
    assert isolated["EnableNetworkIsolation"] is True
    assert not [name for name in output(world, isolated)["env"] if name.startswith("AWS_")]


def test_metrics_and_logs_come_from_what_was_printed(world: World) -> None:
    job = world.train("print('test:accuracy=0.5')\nprint('accuracy=0.9')\nprint('test:accuracy=0.93')")
    assert job["FinalMetricDataList"][0]["MetricName"] == "test:accuracy"
    assert job["FinalMetricDataList"][0]["Value"] == pytest.approx(0.93)
    assert job["FinalMetricDataList"][0]["Value"] != 0.93, "AWS returns a 32-bit float"
    assert log_lines(world, job) == ["test:accuracy=0.5", "accuracy=0.9", "test:accuracy=0.93"]
    silent = world.train("print('nothing')")
    assert not silent.get("FinalMetricDataList")


def test_a_job_passes_through_the_states_that_sagemaker_shows(world: World) -> None:
    job = world.train("pass")
    transitions = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert transitions == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all(step["StatusMessage"] for step in job["SecondaryStatusTransitions"])
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


def test_a_failing_program_fails_the_job_with_its_own_words(world: World) -> None:
    said = world.train(
        "import os, pathlib, sys\n"
        "pathlib.Path(os.environ['SAGEMAKER_BASE_DIR'], 'output/failure').write_text('the data has one class')\n"
        "sys.exit(2)"
    )
    assert said["TrainingJobStatus"] == "Failed"
    assert said["FailureReason"].startswith("AlgorithmError: the data has one class")
    assert "exit code: 2" in said["FailureReason"]
    silent = world.train("raise ValueError('no such backbone')")
    assert "ValueError: no such backbone" in silent["FailureReason"]


def test_killing_the_second_host_fails_the_job_and_ends_the_first(world: World) -> None:
    request = world.job_request(SLEEPING, **two_hosts())
    name = request["TrainingJobName"]
    world.sagemaker.create_training_job(**request)
    os.kill(pid_of(world, f"{name}/algo-2"), signal.SIGKILL)
    job = world.finished(name)
    assert job["TrainingJobStatus"] == "Failed"
    assert "exit code: 137 (algo-2)" in job["FailureReason"]
    assert not [each for each in world.process_names() if each.startswith(name)]


def test_a_spot_interruption_restarts_all_hosts_from_the_checkpoints_in_s3(world: World) -> None:
    world.connection.interrupt_spot(after_checkpoints=1)
    options = spot(world)
    job = world.train(CHECKPOINTING, **two_hosts(**options))
    assert job["TrainingJobStatus"] == "Completed", job.get("FailureReason")
    states = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert states == [
        *("Starting", "Downloading", "Training", "Interrupted"),
        *("Starting", "Downloading", "Training", "Uploading", "Completed"),
    ]
    starts = [line for line in log_lines(world, job) if line.startswith("host=")]
    assert len(starts) == 4
    assert len({line.split("pid=")[1].split()[0] for line in starts}) == 4
    assert 0 < output(world, job, "algo-1")["resumed_step"] < 12
    assert output(world, job, "algo-2")["resumed_step"] == output(world, job, "algo-1")["resumed_step"]
    assert job["EnableManagedSpotTraining"] is True
    assert job["CheckpointConfig"]["S3Uri"] == options["CheckpointConfig"]["S3Uri"]
    prefix = options["CheckpointConfig"]["S3Uri"].split("/", 3)[3]
    assert world.keys(prefix) == [f"{prefix}step-0009.ckpt", f"{prefix}step-0012.ckpt"], "deletions are mirrored"


def test_an_on_demand_job_is_not_interrupted(world: World) -> None:
    world.connection.interrupt_spot(after_checkpoints=0)
    job = world.train("import time; time.sleep(0.3)")
    assert "Interrupted" not in [step["Status"] for step in job["SecondaryStatusTransitions"]]
    taken = world.train("import time; time.sleep(0.3)", **spot(world))
    assert "Interrupted" in [step["Status"] for step in taken["SecondaryStatusTransitions"]]


def test_a_stopped_job_ends_stopped_and_leaves_no_process(world: World) -> None:
    request = world.job_request(SLEEPING)
    name = request["TrainingJobName"]
    world.sagemaker.create_training_job(**request)
    pid_of(world, f"{name}/algo-1")
    world.sagemaker.stop_training_job(TrainingJobName=name)
    assert world.job(name)["TrainingJobStatus"] in {"Stopping", "Stopped"}
    job = world.finished(name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert not [each for each in world.process_names() if each.startswith(name)]
    with pytest.raises(ClientError, match="in status Stopped"):
        world.sagemaker.stop_training_job(TrainingJobName=name)


def test_a_job_over_its_maximum_runtime_is_stopped(world: World) -> None:
    job = world.train(SLEEPING, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_role_without_getobject_fails_the_job_with_accessdenied(world: World) -> None:
    job = world.train("pass", RoleArn=world.make_role(deny="s3:GetObject"))
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("ClientError: Data download failed:Unable to download object s3://")
    assert "AccessDenied" in job["FailureReason"]


def test_a_role_without_putobject_fails_the_job_at_the_upload(world: World) -> None:
    job = world.train("pass", RoleArn=world.make_role(deny="s3:PutObject"))
    assert job["TrainingJobStatus"] == "Failed"
    assert "AccessDenied" in job["FailureReason"]


def refused(world: World, **changes: Any) -> str:
    request = world.job_request("pass", **changes)
    with pytest.raises(ClientError) as raised:
        world.sagemaker.create_training_job(**request)
    error = raised.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


def test_a_job_that_cannot_work_is_refused_at_once(world: World) -> None:
    other = world.make_role(principal="lambda.amazonaws.com")
    nothing = [channel("data", f"s3://{world.bucket}/nothing/")]
    wait = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    inside = {"S3Uri": "s3://b/c", "LocalPath": "/opt/ml/model"}
    assert "MaxWaitTimeInSeconds" in refused(world, EnableManagedSpotTraining=True)
    assert "MaxWaitTimeInSeconds" in refused(world, EnableManagedSpotTraining=True, StoppingCondition=wait)
    assert "MaxWaitTimeInSeconds" in refused(world, StoppingCondition=wait)
    assert "Could not assume role" in refused(world, RoleArn=other)
    assert "No S3 objects found" in refused(world, InputDataConfig=nothing)
    assert "LocalPath" in refused(world, CheckpointConfig=inside)
    assert "trainingJobName" in refused(world, TrainingJobName="a_b")
    name = world.train("pass")["TrainingJobName"]
    assert refused(world, TrainingJobName=name).startswith("ResourceInUse: Training job names must be unique")


def test_an_unknown_image_fails_the_job_with_its_name(world: World) -> None:
    request = world.job_request("pass")
    request["AlgorithmSpecification"]["TrainingImage"] = "example.com/strange:1"
    world.sagemaker.create_training_job(**request)
    job = world.finished(request["TrainingJobName"])
    assert job["TrainingJobStatus"] == "Failed"
    assert "example.com/strange:1" in job["FailureReason"]


def test_a_cloud_that_is_killed_in_mid_training_leaves_no_process(tmp_path: Path) -> None:
    connection = cloud.up(tmp_path, time_scale=300)
    world = World(connection)
    request = world.job_request(SLEEPING, **two_hosts())
    world.sagemaker.create_training_job(**request)
    pids = [pid_of(world, f"{request['TrainingJobName']}/{host}") for host in ("algo-1", "algo-2")]
    os.kill(connection.pid, signal.SIGKILL)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    cloud.down(tmp_path)
