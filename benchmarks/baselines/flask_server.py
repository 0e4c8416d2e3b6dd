"""The original project's handler behind Flask; gunicorn runs it. The model folder is `$MODEL_FOLDER`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from flask import Flask, Response, request

from benchmarks.baselines.network import load, logits

app = Flask(__name__)
network = load(Path(os.environ["MODEL_FOLDER"]))


@app.get("/ping")
def ping() -> Response:
    """200: the module could only be imported with its model."""
    return Response(status=200)


@app.post("/invocations")
def invocations() -> Response:
    """All logits as JSON."""
    return Response(json.dumps(logits(network, request.get_data())), mimetype="application/json")
