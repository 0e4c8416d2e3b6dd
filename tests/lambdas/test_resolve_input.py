from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.resolve_input import handler as resolve_input
from lambdas.resolve_input.handler import InvalidInput, resolve
from workflow import config, execution_input

SCHEMA = execution_input.execution_input_schema()
DEFAULTS = config.Config().defaults()
SETTABLE = {
    "training": {"epochs": st.integers(1, 1000), "managed_spot": st.booleans(), "seed": st.integers(0, 99)},
    "gate": {"min_test_accuracy": st.floats(0, 1), "max_regression": st.floats(0, 1)},
    "hosting": {"max_instance_count": st.integers(5, 50), "scale_in_cooldown_seconds": st.integers(0, 900)},
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
overrides = st.fixed_dictionaries(
    {}, optional={name: st.fixed_dictionaries({}, optional=keys) for name, keys in SETTABLE.items()}
)


def error_of(given_input: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        resolve(given_input, DEFAULTS, SCHEMA)
    return str(caught.value)


@pytest.mark.parametrize("given_input", [{}, {"Comment": "Insert your JSON here"}, None])
def test_an_empty_input_takes_every_default(given_input: Any) -> None:
    assert resolve(given_input, DEFAULTS, SCHEMA) == DEFAULTS


def test_the_handler_reads_the_schema_that_was_packed_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    packed = tmp_path / "execution_input.schema.json"
    packed.write_text(json.dumps(SCHEMA))
    monkeypatch.setattr(resolve_input, "SCHEMA_PATH", packed)
    resolve_input.load_schema.cache_clear()
    try:
        settings = resolve_input.handler({"input": {"training": {"epochs": 3}}, "defaults": DEFAULTS}, context)
    finally:
        resolve_input.load_schema.cache_clear()
    assert settings["training"]["epochs"] == 3


@given(overrides)
def test_what_is_given_wins_and_everything_else_stays(given_input: dict[str, Any]) -> None:
    before = copy.deepcopy(DEFAULTS)
    settings = resolve(given_input, DEFAULTS, SCHEMA)
    for section, keys in DEFAULTS.items():
        for key, default in keys.items():
            assert settings[section][key] == given_input.get(section, {}).get(key, default)
    assert before == DEFAULTS


@given(overrides)
def test_resolving_twice_changes_nothing(given_input: dict[str, Any]) -> None:
    settings = resolve(given_input, DEFAULTS, SCHEMA)
    assert resolve(given_input, settings, SCHEMA) == settings


@given(json_values)
def test_any_json_is_either_resolved_or_refused_by_name(given_input: Any) -> None:
    try:
        settings = resolve(given_input, DEFAULTS, SCHEMA)
    except InvalidInput:
        return
    assert settings.keys() == DEFAULTS.keys()


@given(st.sampled_from(sorted(DEFAULTS)), st.text(min_size=1, max_size=30))
def test_an_unknown_key_is_named_with_its_section_and_the_allowed_keys(section: str, key: str) -> None:
    if key in DEFAULTS[section]:
        return
    message = error_of({section: {key: 1}})
    assert f"{section}.{key}" in message
    assert all(allowed in message for allowed in DEFAULTS[section])


def test_a_misspelt_key_is_answered_with_the_one_that_was_meant() -> None:
    assert "did you mean 'epochs'?" in error_of({"training": {"epocs": 3}})
    assert "Unknown key 'trainign' in the input (did you mean 'training'?)" in error_of({"trainign": {}})


@pytest.mark.parametrize(
    ("given_input", "parts"),
    [
        ({"training": {"epochs": 0}}, ("training.epochs", "0", "at least 1", "at most 1000")),
        ({"training": {"epochs": "ten"}}, ("training.epochs", '"ten"', "integer")),
        ({"training": {"epochs": None}}, ("training.epochs", "null", "integer")),
        ({"training": {"epochs": True}}, ("training.epochs", "true", "integer")),
        ({"training": {"weights": "magic"}}, ("training.weights", "magic", "channel", "package", "hub", "none")),
        ({"gate": {"min_test_accuracy": 1.5}}, ("gate.min_test_accuracy", "1.5", "at most 1")),
        ({"data": {"s3_uri": "/home/me/dogs"}}, ("data.s3_uri", "/home/me/dogs", "matching")),
        ({"training": [1]}, ("training", "[1]", "an object")),
        ([], ("Invalid input: []", "an object")),
        ("training", ("Invalid input", "an object")),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(given_input: Any, parts: tuple[str, ...]) -> None:
    message = error_of(given_input)
    assert all(part in message for part in parts), message


def test_two_values_that_contradict_each_other_are_both_named() -> None:
    message = error_of({"hosting": {"min_instance_count": 5}})
    assert "'hosting.min_instance_count' is 5" in message
    assert "'hosting.max_instance_count' is 3" in message


def test_a_whole_number_written_as_a_float_reaches_aws_as_an_integer() -> None:
    epochs = resolve({"training": {"epochs": 3.0}}, DEFAULTS, SCHEMA)["training"]["epochs"]
    assert (epochs, type(epochs)) == (3, int)


def test_a_comment_below_the_top_is_no_comment() -> None:
    assert "training.Comment" in error_of({"training": {"Comment": "hello"}})


def test_a_huge_value_does_not_make_a_huge_message() -> None:
    assert len(error_of({"training": {"backbone": "x" * 100_000}})) < 1000
    assert len(error_of({"training": {"y" * 100_000: 1}})) < 1000


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("s3://dogs/new/_SUCCESS", "s3://dogs/new/"),
        ("s3://dogs/a/b/_SUCCESS", "s3://dogs/a/b/"),
        ("s3://dogs/_SUCCESS", "s3://dogs/"),
        ("s3://dogs/new_SUCCESS/", "s3://dogs/new_SUCCESS/"),
    ],
)
def test_the_marker_of_a_complete_data_set_means_its_folder(named: str, meant: str) -> None:
    assert resolve({"data": {"s3_uri": named}}, DEFAULTS, SCHEMA)["data"]["s3_uri"] == meant


@pytest.mark.parametrize(
    "named", ["s3://dogs/new_SUCCESS", "s3://dogs/new/_SUCCESS/x", "s3://dogs/a b/_SUCCESS", "_SUCCESS"]
)
def test_another_object_is_still_no_folder(named: str) -> None:
    assert "data.s3_uri" in error_of({"data": {"s3_uri": named}})
