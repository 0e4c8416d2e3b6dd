"""A client of the server's application, with the colour model behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from colour_model import model_folder, picture_bytes

from inference.server import create_app
from inference.service import Limits


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
