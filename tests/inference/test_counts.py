"""What a request costs, in counts that no clock and no busy machine can blur."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import psutil
import pytest
from PIL import Image, ImageFile
from serving_process import ROOT, Server

from inference import runtime
from inference.contract import InputContract
from inference.preprocessing import preprocess

NEVER = ("torch", "torchvision", "onnx", "onnxscript", "scipy", "pandas", "boto3", "training", "workflow")
PRECISIONS = [
    pytest.param(p, marks=pytest.mark.skipif(bool(runtime.unsupported(p)), reason=runtime.unsupported(p)))
    for p in ("float32", "bfloat16", "int8")
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the pictures that are opened and decoded, with the pixels of these, and the runs of the network."""
    counted: Counter[str] = Counter()
    opened, load, run = Image.open, ImageFile.ImageFile.load, onnxruntime.InferenceSession.run

    def counting_open(*arguments: Any, **named: Any) -> Any:
        counted["opened"] += 1
        return opened(*arguments, **named)

    def counting_load(image: Any) -> Any:
        if image.tile:  # Pillow asks often, and decodes what is left to decode
            counted["decoded"] += 1
            counted["pixels"] += image.width * image.height
        return load(image)

    def counting_run(*arguments: Any) -> Any:
        counted["run"] += 1
        return run(*arguments)

    monkeypatch.setattr(Image, "open", counting_open)
    monkeypatch.setattr(ImageFile.ImageFile, "load", counting_load)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counting_run)
    return counted


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_request_decodes_its_picture_once_and_runs_the_network_once(
    kind: str, client: Any, calls: Counter[str], picture: Callable[..., bytes]
) -> None:
    for width in (40, 50, 60):
        assert client.invoke(picture(size=(width, 30), kind=kind), f"image/{kind.lower()}").status_code == 200
    assert calls == {"opened": 3, "decoded": 3, "run": 3, "pixels": (40 + 50 + 60) * 30}


@pytest.mark.parametrize(
    ("kind", "pixels"), [("JPEG", 1000 * 750), ("PNG", 4000 * 3000)]
)  # the PNG shows that it is JPEG's own scaling
def test_of_a_jpeg_of_12_megapixels_a_sixteenth_is_decoded(
    kind: str, pixels: int, calls: Counter[str], picture: Callable[..., bytes]
) -> None:
    """Half of that again would leave fewer than twice the 256 pixels that are needed."""
    wanted = InputContract(224, 256, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert preprocess(picture(size=(4000, 3000), kind=kind), wanted).shape == (3, 224, 224)
    assert calls == {"opened": 1, "decoded": 1, "pixels": pixels}


def test_an_answer_holds_as_many_classes_as_were_asked_for_and_nothing_else(
    client: Any, picture: Callable[..., bytes]
) -> None:
    response = client.invoke(picture(), **{"X-Amzn-SageMaker-Custom-Attributes": "top_k=2"})
    predictions = json.loads(response.content)["predictions"]
    assert [sorted(prediction) for prediction in predictions] == [["class", "probability"]] * 2
    assert len(response.content) == len(json.dumps({"predictions": predictions}))
    assert sorted(response.headers) == ["content-length", "content-type"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_server_imports_one_runtime_and_nothing_that_it_does_not_need(
    precision: str, make_model: Callable[..., Path]
) -> None:
    code = (
        "import sys\n"
        "from inference import server, service\n"
        "from inference.handler import model_fn, predict_fn, Request\n"
        "predict_fn(Request(service._warm_up_picture(), 1), model_fn(sys.argv[1]))\n"
        "print(sorted(set(sys.argv[2].split()) & sys.modules.keys()))"
    )
    names = " ".join([*NEVER, "onnxruntime", "openvino"])
    ran = subprocess.run(
        [sys.executable, "-c", code, str(make_model(precision=precision)), names],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(["onnxruntime" if precision == "float32" else "openvino"])


def thread_limit(precision: str) -> int:
    """The event loop, the one that looks host names up and a worker a core; OpenVINO computes on threads of its own,
    one a core, while the worker sleeps."""
    return 2 + runtime.cores() * (1 if precision == "float32" else 2)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_process_has_one_worker_a_core_and_few_threads_besides(
    precision: str, make_model: Callable[..., Path]
) -> None:
    server = Server(make_model(precision=precision))
    try:
        server.wait_for_ping(200)
        for _ in range(3 * runtime.cores()):
            assert server.invoke().status_code == 200
        names = [
            Path(f"/proc/{server.process.pid}/task/{t.id}/comm").read_text().strip()
            for t in psutil.Process(server.process.pid).threads()
        ]
        assert len(names) <= thread_limit(precision), names
    finally:
        server.close()
