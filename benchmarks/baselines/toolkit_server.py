"""The original handler as functions for sagemaker-inference's Transformer, behind Flask; gunicorn runs it.

The Transformer was made for a model server's context; this gives it the few values that it reads.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from sagemaker_inference import encoder
from sagemaker_inference.default_inference_handler import DefaultInferenceHandler
from sagemaker_inference.transformer import Transformer

from benchmarks.baselines.network import load, logits

MODEL_FOLDER = os.environ["MODEL_FOLDER"]


class Handler(DefaultInferenceHandler):  # type: ignore[misc]
    """The four functions of the convention."""

    def default_model_fn(self, model_dir: str, context: Any = None) -> Any:  # noqa: ARG002
        return load(Path(model_dir))

    def default_input_fn(self, input_data: bytes, content_type: str, context: Any = None) -> bytes:  # noqa: ARG002
        return bytes(input_data)

    def default_predict_fn(self, data: bytes, model: Any, context: Any = None) -> list[float]:  # noqa: ARG002
        return logits(model, data)

    def default_output_fn(self, prediction: list[float], accept: str, context: Any = None) -> Any:  # noqa: ARG002
        return encoder.encode(prediction, "application/json")


class Properties:
    """The headers of a request, as the model server hands them on."""

    def get_request_properties(self) -> dict[str, str]:
        return {"Content-Type": "image/jpeg", "Accept": "application/json"}

    def get_request_property(self, key: str) -> str | None:
        return self.get_request_properties().get(key)

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        self.code, self.reason = code, reason_phrase


class Context:
    """A model server's context."""

    def __init__(self) -> None:
        self.system_properties = {"model_dir": MODEL_FOLDER, "gpu_id": None}
        self.request_processor = [Properties()]
        self.answer: dict[str, str] = {}

    def set_response_content_type(self, _request: int, content_type: str) -> None:
        self.answer["content_type"] = content_type


app = Flask(__name__)
transformer = Transformer(Handler())
transformer.validate_and_initialize(model_dir=MODEL_FOLDER)


@app.get("/ping")
def ping() -> Response:
    """200: the module could only be imported with its model."""
    return Response(status=200)


@app.post("/invocations")
def invocations() -> Response:
    """What the Transformer makes of the request."""
    (answer,) = transformer.transform([{"body": request.get_data()}], Context())
    text = answer if isinstance(answer, (str, bytes)) else json.dumps(answer)
    return Response(text, mimetype="application/json")
