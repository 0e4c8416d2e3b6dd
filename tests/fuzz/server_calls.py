"""Requests to the server's application as raw ASGI messages: nothing in between corrects them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from colour_model import model_folder

from inference.server import create_app
from inference.service import Limits

Headers = Iterable[tuple[bytes, bytes]]


class Application:
    """The real application with the colour model, in this process."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.app = create_app(model_folder(folder), limits=Limits(workers=2, deadline_seconds=10))
        self._lifespan = self.app.router.lifespan_context(self.app)
        self.loop.run_until_complete(self._lifespan.__aenter__())
        self.loop.run_until_complete(asyncio.wait_for(self._ready(), 60))

    async def _ready(self) -> None:
        while (await self._call("GET", "/ping", (), []))[0] != 200:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self.loop.run_until_complete(self._lifespan.__aexit__(None, None, None))
        self.loop.close()

    def outcome(
        self, body: bytes | list[bytes], headers: Headers = (), method: str = "POST", path: str = "/invocations"
    ) -> str:
        """Send a request; return its status, and the error's name when there is one. Checks the answer's form."""
        pieces = [body] if isinstance(body, bytes) else body
        status, answer = self.loop.run_until_complete(self._call(method, path, headers, pieces))
        if method == "HEAD":  # has no body
            return f"{status} { {404: 'NotFound', 405: 'MethodNotAllowed'}.get(status, '') }".rstrip()
        if status == 200 and path == "/ping":
            return "200"
        if status == 200:
            assert json.loads(answer)["predictions"]
            return "200"
        error = json.loads(answer)
        assert set(error) == {"error", "message"}
        assert error["message"]
        assert len(answer) < 4000
        return f"{status} {error['error']}"

    async def _call(self, method: str, path: str, headers: Headers, pieces: list[bytes]) -> tuple[int, bytes]:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "surrogateescape"),
            "query_string": b"",
            "root_path": "",
            "headers": list(headers),
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
        }
        left = [*pieces]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if left:
                return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        (start,) = [message for message in sent if message["type"] == "http.response.start"]
        return start["status"], b"".join(message.get("body", b"") for message in sent)
