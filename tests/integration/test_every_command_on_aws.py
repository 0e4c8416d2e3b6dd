"""Every command with `--aws`: as on AWS, they get credentials from the environment and know of no local cloud.

AWS_ENDPOINT_URL is what any AWS SDK understands, so to these commands the local cloud is the account.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.harness import SMALL, TIME_SCALE, LocalCloud, eventually
from typer.testing import CliRunner

from workflow.cli import app
from workflow.config import Config
from workflow.deployment import stack, wheels
from workflow.executions import Execution
from workflow.local import cloud
from workflow.local.cloud import Connection

Kelpie = Callable[..., str]


def use_as_aws(connection: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Kelpie:
    """Make the local cloud the AWS account of this process, and return what runs a command there."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {
        "KELPIE_HOME": str(folder / "nothing"),
        "AWS_ENDPOINT_URL": connection.endpoint_url,
        "AWS_ACCESS_KEY_ID": connection.access_key_id,
        "AWS_SECRET_ACCESS_KEY": connection.secret_access_key,
        "AWS_DEFAULT_REGION": connection.region,
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)

    def kelpie(*arguments: str, exit_code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments, "--aws"])
        failure = result.exception if not isinstance(result.exception, SystemExit) else None
        ended = getattr(failure, "exit_code", result.exit_code)
        assert ended == exit_code, f"{arguments}: {failure!r} {getattr(failure, 'detail', '')}\n{result.output}"
        return result.stdout

    return kelpie


@pytest.mark.parametrize(
    "command",
    [
        ("list", "--json"),
        ("describe", "EXECUTION"),
        ("logs", "EXECUTION", "--state", "Train"),
        ("watch", "EXECUTION"),
        ("graph", "EXECUTION", "--json"),
        ("cost", "EXECUTION", "--json"),
        ("compare", "EXECUTION", "EXECUTION", "--json"),
        ("models", "--json"),
        ("predict", "PICTURE", "--json"),
        ("schedule", "show", "--json"),
    ],
    ids=lambda command: command[0],
)
def test_what_reads_says_the_same_with_aws_as_in_the_local_cloud(
    command: tuple[str, ...],
    local_cloud: LocalCloud,
    first_execution: Execution,
    dogs_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meant = {"EXECUTION": first_execution.name, "PICTURE": str(next(dogs_folder.glob("test/*/*.jpg")))}
    arguments = [meant.get(word, word) for word in command]
    monkeypatch.setenv("KELPIE_HOME", str(local_cloud.home.parent))
    locally = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert locally.exit_code == 0
    assert use_as_aws(local_cloud.connection, tmp_path / "shell", monkeypatch)(*arguments) == locally.stdout


@pytest.fixture
def fetched_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip would fetch from a package index: tests reach none."""

    def fetch(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        (folder / "onnx-1.0-py3-none-any.whl").write_bytes(b"no wheel: the hosts of the local cloud have onnx")

    monkeypatch.setattr(wheels, "_download", fetch)


@pytest.fixture
def empty_cloud(tmp_path: Path) -> Iterator[Connection]:
    """A local cloud of its own without a stack."""
    home = tmp_path / "cloud"
    try:
        yield cloud.up(home, region=Config().aws.region, time_scale=TIME_SCALE)
    finally:
        cloud.down(home)


def processes(connection: Connection) -> list[str]:
    """The names of the local cloud's processes."""
    return [process["name"] for process in connection.control("GET", "status")["processes"]]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("fetched_wheels")
def test_a_project_lives_and_ends_on_aws(
    empty_cloud: Connection, dogs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kelpie = use_as_aws(empty_cloud, tmp_path / "shell", monkeypatch)
    account = empty_cloud.account()

    def start(*more: str, **changes: dict[str, Any]) -> str:
        settings = {name: {**section, **changes.get(name, {})} for name, section in SMALL.items()}
        said = kelpie("start", "--input", json.dumps(settings), *more)
        return said.splitlines()[-1].rpartition(":")[2]

    def described(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(kelpie("describe", name, "--json"))
        return found

    # deploy
    findings = json.loads(kelpie("preflight", "--json"))
    assert "error" not in {one["severity"] for one in findings}
    first = kelpie("deploy", "--yes")
    assert "is created" in first
    assert "state machine and its executions: https://us-east-1.console.aws.amazon.com/" in first
    assert "nothing to change" in kelpie("deploy", "--yes")
    outputs = stack.outputs(account, Config())

    # an execution that succeeds
    name = start("--data", str(dogs_folder), "--watch")
    assert described(name)["status"] == "SUCCEEDED"
    assert name in kelpie("list")
    assert kelpie("watch", name) == ""
    assert "Train algo-1" in kelpie("logs", name)
    assert "flowchart" in kelpie("graph", name)
    assert json.loads(kelpie("cost", name, "--json"))["total"] > 0
    picture = str(next(dogs_folder.glob("test/*/*.jpg")))
    assert json.loads(kelpie("predict", picture, "--json"))[0]["predictions"]
    assert kelpie("report", name, "--output", "report.html") == "report.html\n"
    assert name in Path("report.html").read_text()

    # one that is stopped, resumed, and rolled back
    stopped = start("--data", str(dogs_folder), training={"epochs": 8, "trainable": "all", "learning_rate": 3e-4})
    eventually(lambda: "train:loss=" in kelpie("logs", stopped), "the first training step", 300)
    assert stopped in kelpie("stop", stopped)
    assert described(stopped)["status"] == "ABORTED"
    resumed = kelpie("resume", stopped, "--watch").strip().rpartition(":")[2]
    assert described(resumed)["status"] == "SUCCEEDED"
    assert {one["status"] for one in json.loads(kelpie("list", "--json"))} == {"SUCCEEDED", "ABORTED"}
    compared = json.loads(kelpie("compare", name, resumed, "--json"))
    assert "training.epochs" in {one["name"] for one in compared["settings"]}
    assert [one["serves"] for one in json.loads(kelpie("models", "--json"))] == [True, False]
    kelpie("rollback", "--watch")
    assert [one["serves"] for one in json.loads(kelpie("models", "--json"))] == [False, True]

    # the schedule
    assert "DISABLED" in kelpie("schedule", "show")
    assert "ENABLED" in kelpie("schedule", "enable")
    assert "nothing to change" in kelpie("deploy", "--yes")
    assert json.loads(kelpie("schedule", "show", "--json"))["enabled"] is True
    assert len(kelpie("schedule", "next").splitlines()) == 5
    assert "DISABLED" in kelpie("schedule", "disable")

    # the end, in the middle of an execution
    running = start("--data", str(dogs_folder), training={"epochs": 200, "trainable": "all"})
    eventually(lambda: "train:loss=" in kelpie("logs", running), "the first training step", 300)
    said = kelpie("destroy", "--yes")
    listed, _, proof = said.partition("read again:")
    kinds = ("running executions (1)", "training jobs that have not ended (1)", "endpoints (1)", "models (", "logs (")
    for kind in kinds:
        assert kind in listed
    assert "nothing is left that costs money by the hour" in proof
    assert outputs.data_bucket in proof
    assert [process for process in processes(empty_cloud) if process.startswith(("training", "endpoint"))] == []
    kelpie("list", exit_code=1)
    assert outputs.data_bucket in kelpie("destroy", "--yes", "--delete-data")
    assert account.client("s3").list_buckets()["Buckets"] == []
    assert kelpie("destroy", "--yes").startswith("nothing of kelpie is there")
