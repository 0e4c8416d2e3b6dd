"""Builders: a tiny model that tells red, green and blue apart, pictures, and a client of the server's application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from inference.contract import InputContract, ModelContract
from inference.server import create_app
from inference.service import Limits

CLASSES = ("red", "green", "blue")


def picture_bytes(colour: Any = "red", size: tuple[int, int] = (40, 30), kind: str = "PNG", mode: str = "RGB") -> bytes:
    content = BytesIO()
    Image.new(mode, size, colour).save(content, kind)
    return content.getvalue()


def network(image_size: int, class_count: int, input_name: str, output_name: str) -> onnx.ModelProto:
    """Mean colour times a diagonal matrix: the scores are ten times the mean of each channel."""
    weights = [10.0 if row == column else 0.0 for row in range(3) for column in range(class_count)]
    nodes = [
        helper.make_node("GlobalAveragePool", [input_name], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [output_name]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 3, image_size, image_size])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", class_count])],
        [helper.make_tensor("weights", TensorProto.FLOAT, [3, class_count], weights)],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def model_folder(
    folder: Path, *, input_name: str = "images", output_name: str = "logits", class_count: int = 3, program: str = ""
) -> Path:
    """Write model.json and model.onnx into the folder; `program` is the source of code/program.py."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = InputContract(image_size=16, resize_size=18, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ModelContract(classes=CLASSES, input=colours).dump(folder)
    onnx.save(network(16, class_count, input_name, output_name), folder / "model.onnx")
    if program:
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / "program.py").write_text(program)
    return folder


class Client:
    """Calls the application in this process, its lifespan included."""

    def __init__(self, model: Path, *, program: str = "", limits: Limits | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        app = create_app(model, program=program, limits=limits or Limits(workers=2))
        self._lifespan = app.router.lifespan_context(app)
        self.run(self._lifespan.__aenter__())
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def ping(self) -> httpx.Response:
        return self.run(self.http.get("/ping"))

    def invoke(self, body: Any = None, content_type: str | None = "image/png", **headers: str) -> httpx.Response:
        if content_type is not None:
            headers["content-type"] = content_type
        body = picture_bytes() if body is None else body
        return self.run(self.http.post("/invocations", content=body, headers=headers))

    def wait_ready(self) -> Client:
        deadline = time.monotonic() + 20
        while self.ping().status_code != 200:
            assert time.monotonic() < deadline, self.ping().text
            time.sleep(0.01)
        return self

    def reason_for_not_ready(self) -> str:
        """Wait until the loading has failed; what /ping says then."""
        deadline = time.monotonic() + 20
        while "loading" in (message := str(self.ping().json()["message"])):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return message

    def close(self) -> None:
        self.run(self.http.aclose())
        self.run(self._lifespan.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Start an application for a model folder, by default the colour model's."""
    clients: list[Client] = []

    def start(model: Path | None = None, **settings: Any) -> Client:
        clients.append(Client(model or model_folder(tmp_path / "model"), **settings))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A ready application with the colour model, shared by tests that leave it as it is."""
    client = Client(model_folder(tmp_path_factory.mktemp("model"))).wait_ready()
    yield client
    client.close()


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Build a model folder, as `model_folder`."""

    def make_model(**settings: Any) -> Path:
        return model_folder(tmp_path / "model", **settings)

    return make_model


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Build a picture of one colour, as `picture_bytes`."""
    return picture_bytes
