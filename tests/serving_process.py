"""The server as a process of its own, as SageMaker starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from colour_model import picture_bytes

ROOT = Path(__file__).parents[1]
# Stands for an environment without them: an import of torch fails, as it would there.
WITHOUT_TORCH = (
    "import runpy, sys; sys.modules.update({'torch': None, 'torchvision': None});"
    "sys.argv = ['inference.server', 'serve']; runpy.run_module('inference.server', run_name='__main__')"
)


class Server:
    """`python -m inference.server serve` for a model folder, on a free port of loopback."""

    def __init__(self, model: Path, python: Path | None = None, **environment: str) -> None:
        """`python` is the interpreter of another environment; without it, this one's without torch."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        base = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SAGEMAKER_BASE_DIR": str(model.parent),
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }
        here = [sys.executable, "-W", "error::DeprecationWarning", "-c", WITHOUT_TORCH]
        self.process = subprocess.Popen(
            [str(python), "-P", "-m", "inference.server", "serve"] if python else here,
            env=base | environment,
            cwd=model.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

    def wait_for_ping(self, *statuses: int) -> None:
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            try:
                if self.http.get("/ping").status_code in statuses:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)

    def invoke(self, content_type: str = "image/png") -> httpx.Response:
        return self.http.post("/invocations", content=picture_bytes(), headers={"content-type": content_type})

    def close(self) -> None:
        self.http.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
