from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.contract import InputContract, InvalidContract, ModelContract


def document(**changes: Any) -> dict[str, Any]:
    given_input = {"image_size": 160, "resize_size": 182, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    given_input |= changes.pop("input_changes", {})
    base = {"format": "kelpie-image-classifier", "format_version": 1, "classes": ["cat", "dog"], "input": given_input}
    return base | changes


def test_a_contract_survives_being_written_and_read(tmp_path: Path) -> None:
    contract = ModelContract(
        classes=("Hündin", "basset hound"),
        input=InputContract(160, 182, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "bicubic", "pictures"),
        precision="int8",
        backbone="efficientnet_lite0",
        library_versions={"torch": "2.14.1"},
        training={"test_accuracy": 0.97},
    )
    contract.dump(tmp_path)
    assert ModelContract.load(tmp_path) == ModelContract.load(tmp_path / "model.json") == contract


def test_what_the_file_leaves_out_has_the_documented_default() -> None:
    contract = ModelContract.from_json(document())
    assert (contract.input.name, contract.input.interpolation, contract.output.name) == ("images", "bilinear", "logits")
    assert contract.precision == "float32"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "other"}, "format must be"),
        ({"format_version": 2}, "another release"),
        ({"format_version": True}, "format_version"),
        ({"surprise": 1}, "surprise"),
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "repeat"),
        ({"classes": "ab"}, "classes"),
        ({"classes": [1]}, "classes"),
        ({"training": []}, "training"),
        ({"precision": "int4"}, "precision must be one of float32, bfloat16, int8, got 'int4'"),
        ({"precision": ["int8"]}, "precision"),
        ({"input": []}, "input"),
        ({"output": {"name": ""}}, "output.name"),
        ({"output": {"name": "logits", "softmax": True}}, "softmax"),
        ({"input_changes": {"image_size": 0}}, "input.image_size"),
        ({"input_changes": {"image_size": 100000, "resize_size": 100000}}, "input.image_size"),
        ({"input_changes": {"resize_size": 100}}, "input.resize_size"),
        ({"input_changes": {"std": [0.2, 0.2, 0]}}, "input.std"),
        ({"input_changes": {"mean": [0.2, 0.2]}}, "input.mean"),
        ({"input_changes": {"mean": [0.2, 0.2, float("inf")]}}, "input.mean"),
        ({"input_changes": {"mean": [0.2, 0.2, 10**400]}}, "input.mean"),
        ({"input_changes": {"interpolation": "nearest"}}, "input.interpolation"),
        ({"input_changes": {"layout": "NHWC"}}, "layout"),
    ],
)
def test_what_is_not_understood_is_refused_and_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidContract, match=named):
        ModelContract.from_json(document(**changes))


def test_a_missing_key_is_named() -> None:
    incomplete = document()
    del incomplete["input"]["std"]
    with pytest.raises(InvalidContract, match="std"):
        ModelContract.from_json(incomplete)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_an_unreadable_file_is_an_invalid_contract(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(InvalidContract):
        ModelContract.load(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    key=st.sampled_from(["classes", "input", "output", "backbone", "training", "mean", "std", "image_size"]), value=JSON
)
def test_any_value_of_a_key_is_understood_or_refused(key: str, value: Any) -> None:
    inner = key in ("mean", "std", "image_size")
    changed = document(input_changes={key: value}) if inner else document(**{key: value})
    try:
        contract = ModelContract.from_json(json.loads(json.dumps(changed)))
    except InvalidContract:
        return
    assert ModelContract.from_json(json.loads(json.dumps(contract.to_json()))) == contract
