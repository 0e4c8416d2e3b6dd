"""The original handler in LitServe: `python -m benchmarks.baselines.litserve_server PORT WORKERS`.

Without `from __future__ import annotations`: LitServe reads the annotation of `decode_request` as it is.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve
from fastapi import Depends, Request

from benchmarks.baselines.network import load, logits


async def raw(request: Request) -> bytes:
    """The body as it is; LitServe by itself takes JSON and forms."""
    return await request.body()


class Api(litserve.LitAPI):  # type: ignore[misc]
    """The original handler's steps."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.network = load(Path(os.environ["MODEL_FOLDER"]))

    def decode_request(self, request: Annotated[bytes, Depends(raw)]) -> bytes:
        return request

    def predict(self, x: bytes) -> list[float]:
        return logits(self.network, x)

    def encode_response(self, output: list[float]) -> Any:
        return output


if __name__ == "__main__":
    port, workers = (int(argument) for argument in sys.argv[1:])
    api = Api(api_path="/invocations")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=workers, timeout=120, healthcheck_path="/ping"
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
