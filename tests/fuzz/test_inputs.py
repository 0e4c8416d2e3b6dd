"""What people type: execution inputs, kelpie.toml."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from fuzz.shapes import ANY_JSON, NUMBERS, ODD_TEXT, damaged, json_safe
from fuzz.targets import PROFILES, allow, budget, outcome_of
from hypothesis import given
from hypothesis import strategies as st

from lambdas.resolve_input.handler import InvalidInput, resolve
from workflow import config, execution_input
from workflow.commands.executions import _execution_input
from workflow.errors import ConfigError, UsageError

SCHEMA = execution_input.execution_input_schema()
CONFIG = config.Config()
DEFAULTS = CONFIG.defaults()


@st.composite
def values_near(draw: st.DrawFn, rules: dict[str, Any]) -> Any:
    """A value at, inside or outside the limits of a setting, or of another type."""
    limits = [rules[key] for key in ("minimum", "maximum", "exclusiveMinimum", "multipleOf") if key in rules]
    choices = [ANY_JSON, NUMBERS, st.sampled_from(rules.get("enum", [True, False]))]
    for limit in limits:
        around = [limit, limit - 1, limit + 1, float(limit), limit + 0.5, str(limit), limit * 2]
        choices += [st.sampled_from(around)] * 2
    if "pattern" in rules:
        right = ["s3://bucket/dogs/", "s3://a.b-c/", "ml.c5.large", "ml.t2.medium", "resnet18", "ml.p3.2xlarge"]
        choices += [st.sampled_from([*right, *(text + "\n" for text in right)]), damaged_text(right)]
    return draw(st.one_of(choices))


def damaged_text(seeds: list[str]) -> st.SearchStrategy[str]:
    return damaged([seed.encode() for seed in seeds]).map(lambda content: content.decode("latin-1"))


def inputs() -> st.SearchStrategy[dict[str, Any]]:
    sections = {
        name: st.fixed_dictionaries({}, optional={key: values_near(of) for key, of in section["properties"].items()})
        for name, section in SCHEMA["properties"].items()
        if name != "Comment"
    }  # fmt: skip
    whole = st.fixed_dictionaries({}, optional={**sections, "Comment": ODD_TEXT | ANY_JSON})
    one_key = st.sampled_from(
        [(name, key) for name, section in DEFAULTS.items() for key in section]
    ).flatmap(
        lambda at: values_near(SCHEMA["properties"][at[0]]["properties"][at[1]]).map(lambda v: {at[0]: {at[1]: v}})
    )  # fmt: skip
    odd = st.dictionaries(st.sampled_from([*DEFAULTS, "Comment"]) | ODD_TEXT, ANY_JSON, max_size=3)
    return one_key | whole | odd


def both(given_input: dict[str, Any]) -> str:
    """What the Lambda and the command line say of an input; they must agree, and leave it as it is."""
    before = copy.deepcopy(given_input)
    resolved = outcome_of(lambda: resolve(given_input, DEFAULTS, SCHEMA), InvalidInput)
    checked = outcome_of(lambda: execution_input.check_execution_input(given_input, CONFIG.defaults()), ConfigError)
    assert repr(given_input) == repr(before)
    if resolved == checked == "ok":
        settings = resolve(given_input, DEFAULTS, SCHEMA)
        if settings["data"] == DEFAULTS["data"]:
            del settings["data"]  # its default is a template
        execution_input.ExecutionInput.model_validate(settings)
        assert json_safe(settings)
        return "ok"
    return f"{resolved} and {checked}"


@PROFILES
def test_an_input_is_taken_or_refused_by_the_lambda_and_by_the_command_line_alike(profile: str) -> None:
    @budget("execution inputs", profile)
    @given(inputs())
    def check(given_input: dict[str, Any]) -> None:
        allow("execution inputs", both(given_input))

    check()


@pytest.mark.parametrize(
    ("given_input", "outcome"),
    [
        ({"training": {"epochs": 3.0}}, "ok"),
        ({"training": {"learning_rate": 1}}, "ok"),
        ({"training": {"epochs": 3.5}}, "InvalidInput and ConfigError"),
        ({"gate": {"max_regression": float("nan")}}, "InvalidInput and ConfigError"),
        ({"training": {"epochs": float("inf")}}, "InvalidInput and ConfigError"),
        ({"training": {"epochs": 10**400}}, "InvalidInput and ConfigError"),
        ({"training": {"learning_rate": 10**400}}, "InvalidInput and ConfigError"),
        ({"data": {"s3_uri": "s3://bucket/dogs/\n"}}, "InvalidInput and ConfigError"),
        ({"data": {"s3_uri": "s3://bucket/\ud800/"}}, "InvalidInput and ConfigError"),
        ({"Comment": 5}, "InvalidInput and ConfigError"),
        ({"Comment": "\ud800"}, "InvalidInput and ConfigError"),
        ({"Comment": "Insert your JSON here"}, "ok"),
        ({"training": None}, "InvalidInput and ConfigError"),
        ({"training": {"instance_count": 33}}, "InvalidInput and ConfigError"),
    ],
)
def test_what_the_two_once_judged_differently(given_input: dict[str, Any], outcome: str) -> None:
    assert both(given_input) == outcome


@PROFILES
def test_an_input_text_is_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.chdir(tmp_path)
    odd = st.sampled_from(["[" * 5000, '{"a":' * 5000, "x" * 5000, "{" + "\0", ".", "/", "a\0b", "{}", "~"])
    seeds = [b'{"training": {"epochs": 3}}', b"{}", b"input.json"]

    @budget("input texts", profile)
    @given(st.text() | odd | damaged(seeds).map(lambda content: content.decode("latin-1")))
    def check(text: str) -> None:
        allow("input texts", outcome_of(lambda: _execution_input(text), UsageError))

    check()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b""], ids=["binary", "deep", "empty"])
def test_an_input_file_that_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "input.json").write_bytes(content)
    with pytest.raises(UsageError, match="--input"):
        _execution_input(str(tmp_path / "input.json"))


VALID = b"""
[project]
name = "dogs"
[data]
s3_uri = "s3://bucket/dogs/"
[training]
epochs = 3
learning_rate = 0.01
managed_spot = true
[hosting]
min_instance_count = 1
max_instance_count = 4
[vpc]
subnet_ids = ["subnet-1"]
[lock]
when_held = "wait"
"""


def toml_of(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True)
    if isinstance(value, list):
        return f"[{', '.join(map(toml_of, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml_of(entry)}' for key, entry in value.items())}}}"
    return str(value)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """TOML with any value for real keys."""
    lines = []
    sections = config.Config.model_fields
    for name in draw(st.lists(st.sampled_from(sorted(sections)), unique=True, max_size=4)):
        lines.append(f"[{name}]")
        keys = st.sampled_from(sorted(sections[name].annotation.model_fields))  # type: ignore[union-attr]
        for key in draw(st.lists(keys, unique=True, max_size=3)):
            lines.append(f"{key} = {toml_of(draw(ANY_JSON))}")
    return "\n".join(lines).encode("utf-8", "surrogateescape" if draw(st.booleans()) else "ignore")


@PROFILES
def test_a_config_file_is_read_or_refused(tmp_path: Path, profile: str) -> None:
    file = tmp_path / "kelpie.toml"
    text = st.text(max_size=200).map(lambda text: text.encode("utf-8", "ignore"))

    @budget("kelpie.toml", profile)
    @given(text | st.binary(max_size=200) | damaged([VALID]) | tables())
    def check(content: bytes) -> None:
        file.write_bytes(content)
        allow("kelpie.toml", outcome_of(lambda: config.load(file), ConfigError))

    check()


TOO_DEEP = {
    "brackets": b"a = " + b"[" * 5000,
    "dots": b"a." * 2000 + b"a = 1",
    "digits": b"a = " + b"9" * 20_000,
    "binary": b"\xff\xfe",
}


@pytest.mark.parametrize("name", TOO_DEEP)
def test_a_config_file_that_python_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "kelpie.toml").write_bytes(TOO_DEEP[name])
    with pytest.raises(ConfigError, match=r"kelpie\.toml"):
        config.load(tmp_path / "kelpie.toml")


def test_the_valid_file_of_this_test_is_valid(tmp_path: Path) -> None:
    (tmp_path / "kelpie.toml").write_bytes(VALID)
    assert config.load(tmp_path / "kelpie.toml").project.name == tomllib.loads(VALID.decode())["project"]["name"]
