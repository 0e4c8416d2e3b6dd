"""The default handler: the four functions of SageMaker's serving convention, over the model's network.

A user's own program in the archive's `code/` may replace any of the four. They are called in a worker thread, several
at a time.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inference import runtime
from inference.contract import ModelContract
from inference.errors import InvalidBase64, InvalidJson, InvalidRequest, InvalidTopK, UnsupportedContentType
from inference.preprocessing import square

DEFAULT_TOP_K = 5
JSON_TYPE = "application/json"
IMAGE_TYPES = (
    "image/jpeg",
    "image/jpg",
    "image/png",
    "image/webp",
    "application/x-image",
    "application/octet-stream",
)


@dataclass(frozen=True)
class Context:
    """What a request carries besides its body and types; passed to a handler function that takes one more argument."""

    custom_attributes: str = ""
    """The header X-Amzn-SageMaker-Custom-Attributes, as the caller sent it."""


@dataclass(frozen=True)
class Request:
    """A picture, still encoded, and how many classes to answer with."""

    image: bytes
    top_k: int


@dataclass(frozen=True)
class Model:
    """A loaded model: its contract and its network, which several threads may run at once."""

    contract: ModelContract
    network: runtime.Network


def model_fn(model_dir: str) -> Model:
    """Load `model.json` and the network that it describes.

    Raises:
        InvalidContract: the contract is not understood, or the network is not the one that it describes.
    """
    folder = Path(model_dir)
    contract = ModelContract.load(folder / "model.json")
    return Model(contract, runtime.load(folder, contract, runtime.cores()))


def input_fn(body: bytes, content_type: str, context: Context) -> Request:
    """Read a picture's own bytes, or `{"image": base64, "top_k": n}`.

    `top_k` of the JSON object comes before `top_k=n` in the custom attributes; the default is 5.

    Raises:
        UnsupportedContentType, InvalidJson, InvalidRequest, InvalidBase64, InvalidTopK.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in IMAGE_TYPES:
        return Request(body, _attribute_top_k(context.custom_attributes))
    if kind != JSON_TYPE:
        allowed = ", ".join((*IMAGE_TYPES, JSON_TYPE))
        raise UnsupportedContentType(f"Content-Type {kind[:80]!r} is not supported, expected one of {allowed}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidJson('the body must be a JSON object like {"image": "<base64>", "top_k": 5}')
    unknown = sorted(set(document) - {"image", "top_k"})
    if unknown or not isinstance(document.get("image"), str):
        seen = f"unknown key {unknown[0][:80]!r}" if unknown else 'the key "image" must hold the picture in base64'
        raise InvalidRequest(f'{seen}; expected {{"image": "<base64>", "top_k": 5}}')
    top_k = document.get("top_k", None)
    if top_k is None:
        top_k = _attribute_top_k(context.custom_attributes)
    elif isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise InvalidTopK("top_k must be an integer of at least 1")
    try:
        return Request(base64.b64decode(document["image"], validate=True), top_k)
    except (binascii.Error, ValueError) as error:
        raise InvalidBase64(f"the picture is not base64: {error}") from None


def _attribute_top_k(custom_attributes: str) -> int:
    """`top_k=n` among the comma-separated custom attributes; whatever else is there belongs to the caller."""
    for attribute in custom_attributes.split(","):
        name, equals, value = attribute.strip().partition("=")
        if name != "top_k" or not equals:
            continue
        if not (value.isascii() and value.isdigit() and len(value) <= 9 and int(value) > 0):
            raise InvalidTopK("the custom attribute top_k must be an integer of at least 1, like top_k=5")
        return int(value)
    return DEFAULT_TOP_K


def predict_fn(request: Request, model: Model) -> list[dict[str, Any]]:
    """Classify one picture: the `top_k` most probable classes, best first.

    Raises:
        InvalidImage, ImageTooLarge: the picture cannot be read.
    """
    contract = model.contract
    pixels_NHWC = np.asarray(square(request.image, contract.input))[None]
    scores = np.asarray(model.network.run(pixels_NHWC)[0], dtype=np.float64)
    if scores.shape != (len(contract.classes),) or not np.isfinite(scores).all():
        raise RuntimeError(f"the model answered with {scores.shape} scores, or with some that are not finite")
    probabilities = np.exp(scores - scores.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities, kind="stable")[: request.top_k]
    return [{"class": contract.classes[i], "probability": float(probabilities[i])} for i in best]


def output_fn(predictions: list[dict[str, Any]], accept: str) -> tuple[bytes, str]:  # noqa: ARG001
    """Write `{"predictions": [{"class", "probability"}, ...]}`; JSON, whatever the Accept header says."""
    return json.dumps({"predictions": predictions}, ensure_ascii=False).encode(), JSON_TYPE
