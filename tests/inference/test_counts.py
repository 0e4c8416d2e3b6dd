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
from inference.handler import Request, model_fn, predict_fn
from inference.preprocessing import decode, preprocess

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


def test_a_jpeg_s_pixels_are_not_copied_between_decoding_and_scaling(
    monkeypatch: pytest.MonkeyPatch, picture: Callable[..., bytes]
) -> None:
    copied: Counter[str] = Counter()
    for name in ("copy", "convert"):
        made = getattr(Image.Image, name)
        monkeypatch.setattr(Image.Image, name, lambda *a, _n=name, _m=made, **k: copied.update([_n]) or _m(*a, **k))
    assert decode(picture(size=(500, 375), kind="JPEG")).mode == "RGB"
    assert not copied
    assert decode(picture(size=(50, 37), kind="PNG", mode="L", colour=7)).mode == "RGB"
    assert copied["convert"] == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_numpy_normalises_pixels_for_the_network_that_cannot(
    precision: str, make_model: Callable[..., Path], picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_fn(str(make_model(precision=precision)))
    calls = []
    real = runtime.to_tensor
    monkeypatch.setattr(runtime, "to_tensor", lambda *arguments: calls.append(1) or real(*arguments))
    for _ in range(3):
        predict_fn(Request(picture(), 1), model)
    assert len(calls) == (3 if precision == "float32" else 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_memory_of_one_request_is_there_for_the_next() -> None:
    """Page faults: the kernel clears each page that it is asked for, and three pictures of 1000 x 750 have 2200."""
    code = (
        "import resource\n"
        "from PIL import Image\n"
        "from inference import service\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): [Image.new('RGB', (1000, 750), 'red') for _ in range(3)]\n"
        "    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20\n"
        "faults()\n"
        "before = faults()\n"
        "service._keep_freed_memory()\n"
        "faults()\n"
        "print(before, faults())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    before, after = map(int, ran.stdout.split())
    assert before > 1000
    assert after < 50


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
