"""The runtimes behind the handler: which computes what, and what happens where a CPU cannot."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from inference import runtime
from inference.contract import InputContract, InvalidContract, ModelContract
from inference.handler import Request, model_fn, predict_fn
from inference.preprocessing import to_tensor


def cpuinfo(folder: Path, vendor: str, flags: str) -> Path:
    path = folder / "cpuinfo"
    one = f"vendor_id\t: {vendor}\nmodel name\t: one with avx_vnni and amx_bf16\nflags\t\t: {flags}\n"
    path.write_text(f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}")
    return path


def pictures(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return list(np.random.default_rng(1).integers(0, 256, (count, 1, 16, 16, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("precision", "vendor", "flags", "can"),
    [
        ("float32", "GenuineIntel", "fpu sse", True),
        ("bfloat16", "GenuineIntel", "fpu amx_bf16", True),
        ("bfloat16", "GenuineIntel", "fpu avx512_bf16 avx512_vnni", False),
        ("bfloat16", "AuthenticAMD", "fpu avx512_bf16 avx512_vnni", True),
        ("bfloat16", "AuthenticAMD", "fpu avx512f avx512_vnni", False),
        ("int8", "AuthenticAMD", "fpu avx512f avx512_vnni", True),
        ("int8", "GenuineIntel", "fpu avx2 avx_vnni", True),
        ("int8", "GenuineIntel", "fpu avx512f avx2", False),
    ],
)
def test_the_cpu_decides_what_is_computed(tmp_path: Path, precision: str, vendor: str, flags: str, can: bool) -> None:
    reason = runtime.unsupported(precision, cpuinfo(tmp_path, vendor, flags))
    assert (reason == "") == can
    if not can:
        assert all(text in reason for text in (precision, *runtime.CPU_FEATURES[precision]))


@pytest.mark.parametrize("content", [None, "Features\t: fp asimd bf16 i8mm\n", ""])
def test_a_cpu_that_is_no_x86_computes_float32_only(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_text(content)
    assert [bool(runtime.unsupported(p, path)) for p in ("float32", "bfloat16", "int8")] == [False, True, True]


needs = {
    p: pytest.mark.skipif(bool(runtime.unsupported(p)), reason=runtime.unsupported(p)) for p in runtime.CPU_FEATURES
}


@pytest.mark.parametrize("precision", [pytest.param(p, marks=needs[p]) for p in runtime.CPU_FEATURES])
def test_every_precision_is_served_by_the_same_handler(
    precision: str, make_model: Callable[..., Path], picture: Callable[..., bytes]
) -> None:
    model = model_fn(str(make_model(precision=precision)))
    assert model.network.precision == precision
    for colour in ("red", "green", "blue"):
        predictions = predict_fn(Request(picture(colour if colour != "green" else (0, 255, 0)), 3), model)
        assert predictions[0]["class"] == colour
        assert predictions[0]["probability"] == pytest.approx(1, abs=1e-3)


def test_a_cpu_that_cannot_serves_float32_and_says_so(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_model(precision="int8")
    monkeypatch.setattr(runtime, "CPU_FEATURES", {"int8": ("no_such_flag",)})
    with caplog.at_level(logging.WARNING, "inference"):
        network = runtime.load(folder, ModelContract.load(folder), 1)
    assert network.precision == "float32"
    assert caplog.messages == [
        "this machine's CPU is not made for int8: it has none of no_such_flag; serving float32",
    ]


def test_float32_is_onnx_runtimes_answer_bit_by_bit(make_model: Callable[..., Path]) -> None:
    folder = make_model()
    contract = ModelContract.load(folder)
    network = runtime.load(folder, contract, 2)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for pixels_NHWC in pictures(5):
        x_NCHW = to_tensor(pixels_NHWC[0], contract.input)[None]
        assert np.array_equal(network.run(pixels_NHWC), session.run(None, {"images": x_NCHW})[0])
    many_NHWC = np.concatenate(pictures(5))
    assert np.array_equal(network.run(many_NHWC), np.concatenate([network.run(one) for one in pictures(5)]))


@needs["bfloat16"]
def test_calls_at_once_do_not_mix_their_answers(make_model: Callable[..., Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    folder = make_model(precision="bfloat16")
    network = runtime.load(folder, ModelContract.load(folder), 2)
    some = pictures(200)
    alone = [network.run(pixels_NHWC) for pixels_NHWC in some]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(network.run, some))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@needs["int8"]
@pytest.mark.parametrize("change", [{"input_name": "x"}, {"output_name": "y"}, {"class_count": 4}])
def test_an_openvino_network_that_is_not_the_contracts_is_refused(
    change: dict[str, Any], make_model: Callable[..., Path]
) -> None:
    with pytest.raises(InvalidContract, match=r"model\.xml"):
        model_fn(str(make_model(precision="int8", **change)))


@needs["int8"]
def test_an_openvino_network_of_any_batch_size_is_refused_because_it_may_answer_wrongly(
    make_model: Callable[..., Path],
) -> None:
    folder = make_model(precision="int8")
    openvino = runtime.openvino()
    openvino.save_model(openvino.Core().read_model(str(folder / "model.onnx")), str(folder / "model.xml"))
    with pytest.raises(InvalidContract, match=r"model\.xml leaves the shape of its input open"):
        model_fn(str(folder))


@pytest.mark.parametrize(
    ("there", "used"),
    [
        (["CPUExecutionProvider"], ["CPUExecutionProvider"]),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
    ],
)
def test_cuda_is_used_where_onnx_runtime_has_it(
    there: list[str], used: list[str], make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[str]) -> Any:
        asked.append(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    folder = make_model()
    runtime.load(folder, ModelContract.load(folder), 1)
    assert asked == [used]


def test_importing_openvino_tells_nobody() -> None:
    code = (
        "import socket, sys\n"
        "def refused(*_, **__): raise AssertionError('a socket')\n"
        "socket.socket = socket.getaddrinfo = socket.create_connection = refused\n"
        "from inference import runtime\n"
        "runtime.openvino().Core()\n"
        "print(sorted(name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr


def test_openvino_is_ready_for_threads_that_start_at_once() -> None:
    code = (
        "import sys, threading\n"
        "from inference import runtime\n"
        "openvino = runtime.openvino()\n"
        "sys.setswitchinterval(1e-6)\n"
        "barrier = threading.Barrier(3)\n"
        "def first_use():\n"
        "    barrier.wait()\n"
        "    openvino.Type.f32.to_dtype()\n"
        "threads = [threading.Thread(target=first_use) for _ in range(3)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)  # a deadlock holds the interpreter's lock


@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (0.485, 0.456, 0.406)])
def test_openvino_normalises_pixels_as_training_does(mean: tuple[float, float, float], tmp_path: Path) -> None:
    input = InputContract(16, 18, mean, (0.229, 0.224, 0.225))
    openvino = runtime.openvino()
    x_NCHW = openvino.opset13.parameter([1, 3, 16, 16], openvino.Type.f32)
    same = openvino.Model([openvino.opset13.result(openvino.opset13.abs(x_NCHW))], [x_NCHW], "the input's size")
    compiled = openvino.Core().compile_model(runtime.from_pixels(same, input), "CPU", runtime.settings(False, 1))
    for pixels_NHWC in pictures(20):
        [found_NCHW] = compiled(pixels_NHWC).values()
        np.testing.assert_allclose(found_NCHW[0], np.abs(to_tensor(pixels_NHWC[0], input)), rtol=1e-5, atol=1e-6)
