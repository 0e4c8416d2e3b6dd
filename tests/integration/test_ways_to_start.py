"""The ways to start an execution: the command line on pictures of one's own, the SDK, and the console's input."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from integration.harness import SMALL, TIME_SCALE, LocalCloud
from PIL import Image, ImageDraw

from workflow import executions

ROOT = Path(__file__).parents[2]


def shapes(folder: Path) -> Path:
    """Forty pictures of each of three shapes, of different sizes and formats, in the layout <class>/*."""
    draw_shape = {
        "circle": lambda draw, box: draw.ellipse(box, fill="white"),
        "square": lambda draw, box: draw.rectangle(box, fill="white"),
        "triangle": lambda draw, box: draw.regular_polygon(
            ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, (box[2] - box[0]) / 2), 3, fill="white"
        ),
    }
    rng = random.Random(0)
    for name, draw_one in draw_shape.items():
        (folder / name).mkdir(parents=True)
        for number in range(40):
            width, height = rng.randint(80, 300), rng.randint(80, 300)
            picture = Image.new("RGB", (width, height), tuple(rng.randint(0, 120) for _ in range(3)))
            size = min(width, height) * rng.uniform(0.6, 0.9)
            x, y = rng.uniform(0, width - size), rng.uniform(0, height - size)
            draw_one(ImageDraw.Draw(picture), (x, y, x + size, y + size))
            picture.save(folder / name / f"{number} of 40.{rng.choice(['jpg', 'png', 'webp', 'JPEG'])}")
    return folder


Kelpie = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kelpie(local_cloud: LocalCloud, tmp_path: Path) -> Kelpie:
    """Run the real command in a folder of its own, on the session's local cloud."""
    (tmp_path / "kelpie.toml").write_text(f"[local]\ntime_scale = {TIME_SCALE}\n")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workflow", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "KELPIE_HOME": str(local_cloud.home.parent)},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    return run


def test_the_command_line_trains_and_serves_pictures_of_one_s_own(kelpie: Kelpie, tmp_path: Path) -> None:
    data = shapes(tmp_path / "my shapes")
    settings = {**SMALL, "training": {**SMALL["training"], "epochs": 6}, "gate": {"min_test_accuracy": 0.5}}
    settings["gate"]["max_regression"] = 1.0
    (tmp_path / "input.json").write_text(json.dumps(settings))

    started = kelpie("start", "--local", "--data", str(data), "--input", "input.json", "--watch")
    assert started.returncode == 0, started.stderr
    arn = started.stdout.strip()
    assert "SUCCEEDED" in started.stderr

    described = kelpie("describe", arn, "--json")
    summary = json.loads(described.stdout)
    assert summary["status"] == "SUCCEEDED"
    assert {prediction["label"] for prediction in summary["predictions"]} <= {"circle", "square", "triangle"}
    assert "test accuracy" in kelpie("describe").stdout

    picture = next((data / "triangle").iterdir())
    (answer,) = json.loads(kelpie("predict", str(picture), "--json").stdout)
    assert {prediction["class"] for prediction in answer["predictions"]} == {"circle", "square", "triangle"}
    assert sum(prediction["probability"] for prediction in answer["predictions"]) == pytest.approx(1, abs=1e-3)
    assert "triangle" in kelpie("predict", str(picture)).stdout

    refused = kelpie("start", "--local", "--name", arn.rpartition(":")[2], "--input", "{}")
    assert refused.returncode == 1
    assert "StartExecution was refused: ExecutionAlreadyExists" in refused.stderr

    assert "class state_Train succeeded" not in kelpie("graph").stdout
    assert "succeeded" in kelpie("graph", arn).stdout
    status = json.loads(kelpie("local", "status", "--json").stdout)
    assert any(process["name"].startswith("AllTraffic/") for process in status["processes"])


def test_an_execution_that_fails_exits_with_1_and_says_which_state_and_why(kelpie: Kelpie) -> None:
    result = kelpie("start", "--local", "--data", "s3://no-such-bucket-anywhere/pictures/", "--watch")
    assert result.returncode == 1
    assert "CheckData" in result.stderr
    assert "no-such-bucket-anywhere" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_script_starts_it_with_the_sdk(local_cloud: LocalCloud) -> None:
    small = {name: {**section} for name, section in SMALL.items()}
    small["gate"]["min_test_accuracy"] = 0.0
    small["smoke_test"]["min_accuracy"] = 0.0
    small["training"]["epochs"] = 1
    result = subprocess.run(
        [
            *(sys.executable, "-m", "examples.start_from_the_sdk"),
            json.dumps({**small, "data": {"s3_uri": local_cloud.data_s3_uri}}),
        ],
        cwd=ROOT,
        env={**os.environ, "KELPIE_HOME": str(local_cloud.home.parent)},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    arn, ended = [line for line in result.stdout.splitlines() if line.startswith(("arn:", "{"))]
    assert json.loads(ended)["status"] == "SUCCEEDED"
    assert 0 <= json.loads(ended)["gate"]["test_accuracy"] <= 1
    assert executions.describe(local_cloud.account, arn).status == "SUCCEEDED"


def test_the_console_s_comment_trains_on_the_project_s_own_data(local_cloud: LocalCloud, dogs_folder: Path) -> None:
    client = local_cloud.account.client("s3")
    for path in sorted(dogs_folder.rglob("*.jpg"))[::3]:
        key = f"datasets/default/{path.relative_to(dogs_folder).as_posix()}"
        client.put_object(Bucket=local_cloud.outputs.data_bucket, Key=key, Body=path.read_bytes())
    arn = executions.start(
        local_cloud.account,
        local_cloud.outputs.state_machine_arn,
        {"Comment": "Insert your JSON here"},
        # EventBridge names executions <uuid>_<uuid>: 73 characters, with a character that no SageMaker name may have.
        name="0b5d5f0e-3ad4-4b51-9d55-6f1f1f2f3a4b_6c1b7c52-6a3e-4a0f-8f57-1d2e3f4a5b6c",
    )
    ended = local_cloud.wait(arn)
    assert "QualityGate" in {visit.name for visit in ended.visits}, f"{ended.error}: {ended.cause}"
