from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import inference
from inference import errors
from inference.contract import InvalidContract
from inference.handler import DEFAULT_TOP_K, Context, Request, input_fn, model_fn, output_fn, predict_fn


def ask(document: Any, attributes: str = "") -> Request:
    return input_fn(json.dumps(document).encode(), "application/json", Context(attributes))


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_the_best_class_comes_first_and_probabilities_add_up(
    colour: str, make_model: Callable[..., Path], picture: Callable[..., bytes]
) -> None:
    model = model_fn(str(make_model()))
    paint = {"red": (250, 0, 90), "green": (0, 250, 90), "blue": (90, 0, 250)}[colour]
    predictions = predict_fn(Request(picture(paint), DEFAULT_TOP_K), model)
    assert predictions[0]["class"] == colour
    assert [p["probability"] for p in predictions] == sorted((p["probability"] for p in predictions), reverse=True)
    assert math.isclose(sum(p["probability"] for p in predictions), 1, rel_tol=1e-9)


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (1000, 3)])
def test_top_k_limits_the_answer(
    top_k: int, count: int, make_model: Callable[..., Path], picture: Callable[..., bytes]
) -> None:
    assert len(predict_fn(Request(picture(), top_k), model_fn(str(make_model())))) == count


def test_json_and_raw_bytes_mean_the_same(picture: Callable[..., bytes]) -> None:
    raw = input_fn(picture(), "image/png", Context("top_k=2"))
    assert ask({"image": base64_of(picture()), "top_k": 2}) == raw == Request(picture(), 2)


@pytest.mark.parametrize(
    ("attributes", "top_k"),
    [("", 5), ("top_k=3", 3), ("trace=abc, top_k=7", 7), ("c000b4f9-df62", 5), ("top_k", 5), ("top_kk=9", 5)],
)
def test_top_k_is_read_from_the_custom_attributes(attributes: str, top_k: int) -> None:
    assert input_fn(b"", "image/jpeg", Context(attributes)).top_k == top_k


def test_top_k_in_the_json_comes_before_the_custom_attributes() -> None:
    assert ask({"image": "", "top_k": 2}, "top_k=4").top_k == 2
    assert ask({"image": ""}, "top_k=4").top_k == 4


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "1e3", "²", "9" * 5000])
def test_a_bad_top_k_attribute_is_a_typed_error(value: str) -> None:
    with pytest.raises(errors.InvalidTopK):
        input_fn(b"", "image/png", Context(f"top_k={value}"))


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", [], {}])
def test_a_bad_top_k_in_the_json_is_a_typed_error(value: Any) -> None:
    with pytest.raises(errors.InvalidTopK):
        ask({"image": "", "top_k": value})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe\xff", b"[" * 200_000])
def test_bad_json_is_a_typed_error(body: bytes) -> None:
    with pytest.raises(errors.InvalidJson):
        input_fn(body, "application/json; charset=utf-8", Context())


@pytest.mark.parametrize(
    "document", [{}, {"image": 1}, {"image": "", "url": "http://example.com/a.jpg"}, {"image": None}]
)
def test_an_object_of_other_keys_is_a_typed_error(document: Any) -> None:
    with pytest.raises(errors.InvalidRequest):
        ask(document)


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", "AAA", "héllo", "AA AA", "http://example.com/a.jpg"])
def test_bad_base64_is_a_typed_error(text: str) -> None:
    with pytest.raises(errors.InvalidBase64):
        ask({"image": text})


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "image/gif", "application/x-npy", "application/python-pickle"]
)
def test_another_content_type_is_a_typed_error_that_lists_the_supported_ones(content_type: str) -> None:
    with pytest.raises(errors.UnsupportedContentType, match="image/webp"):
        input_fn(b"", content_type, Context())


def test_the_answer_is_json_with_class_names_as_they_are() -> None:
    body, content_type = output_fn([{"class": "Hündin", "probability": 1.0}], "*/*")
    assert content_type == "application/json"
    assert json.loads(body) == {"predictions": [{"class": "Hündin", "probability": 1.0}]}


@pytest.mark.parametrize("change", [{"input_name": "x"}, {"output_name": "y"}, {"class_count": 4}])
def test_a_network_that_is_not_the_contracts_is_refused(
    change: dict[str, Any], make_model: Callable[..., Path]
) -> None:
    with pytest.raises(InvalidContract, match=r"model\.onnx"):
        model_fn(str(make_model(**change)))


def test_the_package_is_the_default_handler_module() -> None:
    assert (inference.model_fn, inference.input_fn) == (model_fn, input_fn)
    assert (inference.predict_fn, inference.output_fn) == (predict_fn, output_fn)
    with pytest.raises(AttributeError, match="transform_fn"):
        inference.transform_fn  # noqa: B018


def test_the_contract_and_the_preprocessing_import_neither_torch_nor_the_serving_libraries() -> None:
    code = (
        "import sys, inference.contract, inference.preprocessing;"
        "print({'torch', 'torchvision', 'onnxruntime', 'starlette', 'uvicorn'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "set()"
