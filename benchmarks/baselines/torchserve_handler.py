"""The original handler as a TorchServe handler; packed into a model archive by the script."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.baselines.network import load, logits


class Handler:
    """What TorchServe calls."""

    def initialize(self, _context: Any) -> None:
        self.network = load(Path(os.environ["MODEL_FOLDER"]))

    def handle(self, data: list[dict[str, Any]], _context: Any) -> list[str]:
        bodies = [bytes(entry.get("body") or entry.get("data") or b"") for entry in data]
        return [json.dumps(logits(self.network, body)) for body in bodies]
