"""The serving image: what its Dockerfile says, and its environment, which the local cloud builds and runs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_process import ROOT, Server

from benchmarks import image
from inference import runtime
from workflow.local.images import Images

DOCKERFILE = (ROOT / "inference" / "Dockerfile").read_text()
REQUIREMENTS = (ROOT / "inference" / "requirements.txt").read_text()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the environment that stands for the image, without what the Dockerfile removes."""
    installed = Images().python_for("kelpie-serving")
    return image.slimmed(installed, tmp_path_factory.mktemp("image") / "environment")


def test_every_requirement_is_pinned() -> None:
    lines = [line for line in REQUIREMENTS.splitlines() if line and not line.startswith("#")]
    assert len(lines) > 10
    assert all(re.fullmatch(r"[a-z0-9_-]+==[0-9][0-9a-z.]*", line) for line in lines), lines


def test_the_image_runs_as_nobody_in_particular_and_starts_the_server() -> None:
    instructions = [line for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]
    [user] = [line for line in instructions if line.startswith("USER")]
    assert user == "USER 10001"
    after = instructions[instructions.index(user) :]
    assert not [line for line in after if line.startswith(("RUN", "COPY"))]
    assert 'ENTRYPOINT ["python", "-P", "-m", "inference.server"' in DOCKERFILE


def test_the_environment_has_no_torch_and_nothing_else_of_training(python: Path) -> None:
    names = ("torch", "torchvision", "onnx", "onnxscript", "safetensors", "scipy", "sympy", "boto3", "pip")
    code = f"import importlib.util as u; print([name for name in {names!r} if u.find_spec(name)])"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout.strip()) == (0, "[]"), found.stderr


def test_of_openvino_the_image_keeps_the_cpus_plugin_and_its_own_format(python: Path) -> None:
    libraries = {path.name.split(".")[0] for path in python.parents[1].rglob("openvino/libs/libopenvino*")}
    assert libraries == {
        "libopenvino",
        "libopenvino_c",
        "libopenvino_intel_cpu_plugin",
        "libopenvino_ir_frontend",
    }
    installed = Images().python_for("kelpie-serving").parents[1]
    assert image.folder_bytes(python.parents[1]) < image.folder_bytes(installed) - 70 * 2**20


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_server_in_that_environment_answers(precision: str, python: Path, make_model: Callable[..., Path]) -> None:
    if runtime.unsupported(precision):
        pytest.skip(runtime.unsupported(precision))
    server = Server(make_model(precision=precision), python)
    try:
        server.wait_for_ping(200)
        assert server.invoke().json()["predictions"][0]["class"] == "red"
    finally:
        server.close()
