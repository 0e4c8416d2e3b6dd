"""The handler with PyTorch of docs/how-to/use-your-own-handler.md, by Kelpie's server and by AWS's own toolkit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_model import picture_bytes
from safetensors.torch import save_file
from serving_process import ROOT, Server
from torchvision.models import resnet50

from benchmarks.contestants import BASELINE_ENVIRONMENT
from inference.contract import InputContract, ModelContract

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "use-your-own-handler.md"
PROGRAM = "with_torch.py"
TOOLKIT = """
import json, os, sys
from types import SimpleNamespace
from sagemaker_inference.default_handler_service import DefaultHandlerService

headers = {"Content-Type": "image/png", "Accept": "application/json"}
context = SimpleNamespace(
    system_properties={"model_dir": sys.argv[1], "gpu_id": None},
    request_processor=[SimpleNamespace(get_request_properties=lambda: headers)],
    set_response_content_type=lambda place, kind: said.update(content_type=kind),
    set_response_status=lambda code, phrase: said.update(status=code),
)
said = {}
service = DefaultHandlerService()
service.initialize(context)
[body] = service.handle([{"body": sys.stdin.buffer.read()}], context)
print(json.dumps(said | {"body": body}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a ResNet-50's weights under the names that training gives them, and the page's program."""
    folder = tmp_path_factory.mktemp("torch") / "model"
    (folder / "code").mkdir(parents=True)
    torch.manual_seed(0)
    tensors = {}
    for name, tensor in resnet50(num_classes=3).state_dict().items():
        tensors[f"head.{name[3:]}" if name.startswith("fc.") else f"backbone.{name}"] = tensor
    save_file(tensors, folder / "model.safetensors")
    input = InputContract(64, 72, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    ModelContract(("red", "green", "blue"), input).dump(folder)
    [program] = [text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "torch" in text]
    (folder / "code" / PROGRAM).write_text(program)
    return folder


@pytest.fixture(scope="module")
def served(model: Path) -> dict[str, Any]:
    """The answer of Kelpie's server, in this environment, which has PyTorch."""
    server = Server(model, Path(sys.executable), SAGEMAKER_PROGRAM=PROGRAM)
    try:
        server.wait_for_ping(200)
        response = server.invoke()
        assert response.headers["content-type"] == "application/json"
        answer: dict[str, Any] = response.json()
        return answer
    finally:
        server.close()


def test_kelpie_s_server_runs_it(served: dict[str, Any]) -> None:
    predictions = served["predictions"]
    assert {prediction["class"] for prediction in predictions} == {"red", "green", "blue"}
    assert sum(prediction["probability"] for prediction in predictions) == pytest.approx(1)


def test_aws_s_toolkit_runs_it_with_the_same_answer(model: Path, served: dict[str, Any]) -> None:
    python = BASELINE_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        pytest.skip("the toolkit is in the environment that `make bench-serving` makes")
    ran = subprocess.run(
        [str(python), "-c", TOOLKIT, str(model)],
        input=picture_bytes(),
        capture_output=True,
        env={
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{model / 'code'}{os.pathsep}{ROOT}",
            "SAGEMAKER_PROGRAM": PROGRAM,
        },
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["content_type"] == "application/json", said
    assert "status" not in said, said
    theirs = json.loads(said["body"])["predictions"]
    assert [entry["class"] for entry in theirs] == [entry["class"] for entry in served["predictions"]]
    for ours, entry in zip(served["predictions"], theirs, strict=True):
        assert entry["probability"] == pytest.approx(ours["probability"], abs=1e-5)
