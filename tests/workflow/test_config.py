"""Settings: every key optional, every mistake named, one source for the checks and the reference."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from workflow import config, reference
from workflow.config import Config
from workflow.errors import ConfigError
from workflow.execution_input import (
    ORDER_RULES,
    ExecutionInput,
    SharedSections,
    check_execution_input,
    execution_input_schema,
)

ROOT = Path(__file__).parents[2]
VALIDATE = fastjsonschema.compile(execution_input_schema())


def write(folder: Path, text: str) -> Path:
    file = folder / "kelpie.toml"
    file.write_text(text)
    return file


def complaint(folder: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.load(write(folder, text))
    return caught.value


def test_no_file_means_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load() == Config()


def test_the_file_of_the_current_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '[project]\nname = "collie"')
    assert config.load().project.name == "collie"


def test_an_empty_file_means_defaults(tmp_path: Path) -> None:
    assert config.load(write(tmp_path, "")) == Config()


def test_a_list_can_be_given(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, '[vpc]\nsubnet_ids = ["subnet-0a"]'))
    assert loaded.vpc.subnet_ids == ("subnet-0a",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[training]\nepochs = 0", "training.epochs = 0"),
        ('[training]\nepochs = "3"', "training.epochs = '3'"),
        ("[training]\nepohs = 3", "training.epohs: there is no such key; allowed: backbone, batch_size"),
        ("[trainig]\nepochs = 3", "trainig: there is no such key; allowed: aws, budget, "),
        ('[project]\nname = "Kelpie"', "project.name = 'Kelpie'"),
        ('[project]\nname = "ends-with-"', "project.name"),
        (f'[project]\nname = "{"k" * 25}"', "project.name"),
        ('[hosting]\ninstance_type = "ml.t3.medium"', "hosting.instance_type = 'ml.t3.medium'"),
        ('[hosting]\nprogram = "../own.py"', "hosting.program = '../own.py'"),
        ('[data]\ns3_uri = "s3://bucket/no-slash"', "data.s3_uri"),
        ("[training]\nmanaged_spot = 1", "training.managed_spot = 1"),
        ("[hosting]\nmin_instance_count = 4", "hosting.min_instance_count <= hosting.max_instance_count"),
        ("[training]\nbatch_size = 1", "training.instance_count <= training.batch_size"),
        ('[schedule]\nexpression = "0 3 * * *"', "schedule.expression = '0 3 * * *'"),
        ('[schedule]\nexpression = "every day"', "schedule.expression = 'every day'"),
        ("[schedule]\nflexible_window_minutes = 1441", "schedule.flexible_window_minutes = 1441"),
        ('[notifications]\nemail = "nobody"', "notifications.email = 'nobody'"),
        ("[budget]\nmonthly_usd = 0.5", "budget.monthly_usd = 0.5"),
        ("[concurrency]\nclassify_provisioned_min = 1", "<= concurrency.classify_provisioned_max"),
        ("[concurrency]\nclassify_reserved = 1\nclassify_provisioned_max = 2", "not be above classify_reserved"),
        ('[vpc]\ncreate = true\nsubnet_ids = ["subnet-0a"]', "leave subnet_ids and security_group_ids out"),
    ],
)
def test_a_bad_key_or_value_is_named_in_the_error(tmp_path: Path, text: str, named: str) -> None:
    error = complaint(tmp_path, text)
    assert named in error.detail
    assert "kelpie.toml" in error.headline
    assert error.exit_code == 2


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    detail = complaint(tmp_path, "[training]\nepochs = 0\nseed = -1").detail
    assert "training.epochs" in detail
    assert "training.seed" in detail


@pytest.mark.parametrize("content", [b"[training", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "kelpie.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.load(file)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "nothing.toml")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().training.epochs = 3


def test_the_defaults_are_a_full_input() -> None:
    defaults = json.loads(json.dumps(Config().defaults()))
    assert set(defaults) == set(ExecutionInput.model_fields)
    assert defaults["data"]["s3_uri"] == "s3://${DataBucket}/datasets/default/"
    defaults["data"]["s3_uri"] = "s3://some-bucket/datasets/default/"
    VALIDATE(defaults)


@pytest.mark.parametrize("good", [{}, {"Comment": "Insert your JSON here"}, {"training": {"epochs": 3}}, {"gate": {}}])
def test_an_input_may_hold_any_part_of_the_settings(good: dict[str, Any]) -> None:
    VALIDATE(good)


@pytest.mark.parametrize(
    "bad",
    [
        {"project": {"name": "other"}},
        {"training": {"epohs": 3}},
        {"training": {"epochs": 0}},
        {"training": []},
        {"Comment": 3},
        {"hosting": {"instance_type": "ml.t2.medium"}},
        {"data": {"s3_uri": "s3://bucket/${x}/"}},
        {"data": {"s3_uri": "s3://bucket/dogs"}},
        {"data": {"s3_uri": "s3://bucket/dogs/\n"}},
    ],
)
def test_an_input_with_a_bad_key_or_value_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        VALIDATE(bad)


JOB = f"kelpie-{'0a' * 16}-0"
VERSION = "arn:aws:sagemaker:us-east-1:123456789012:model-package/kelpie/1"


@pytest.mark.parametrize("section", [{"resume": {"training_job": JOB}}, {"rollback": {"model_package_arn": VERSION}}])
def test_what_is_about_one_execution_stands_in_its_input_and_never_in_the_file(section: dict[str, Any]) -> None:
    VALIDATE(section)
    check_execution_input(section, Config().defaults())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Config.model_validate(section)


@pytest.mark.parametrize(
    ("section", "key", "bad"),
    [
        *[("resume", "training_job", bad) for bad in ("kelpie", JOB.upper(), f"{JOB}0", f"{JOB}\n", f"../{JOB}")],
        *[("rollback", "model_package_arn", bad) for bad in ("3", VERSION.rpartition("/")[0], f"{VERSION}\n", "arn:")],
    ],
)
def test_what_no_execution_made_can_neither_be_resumed_nor_brought_back(section: str, key: str, bad: str) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        VALIDATE({section: {key: bad}})
    with pytest.raises(ConfigError, match=rf"{section}\.{key}"):
        check_execution_input({section: {key: bad}}, Config().defaults())


def test_an_unknown_section_of_an_input_is_told_which_ones_there_are() -> None:
    with pytest.raises(ConfigError, match=r"allowed: data, gate, hosting, resume, rollback, smoke_test, training"):
        check_execution_input({"project": {}}, Config().defaults())


numbers = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(max_size=5))
keys = [
    (section, key) for section, field in SharedSections.model_fields.items() for key in field.annotation.model_fields
]  # type: ignore[union-attr]


@settings(deadline=None)
@given(where=st.sampled_from(keys), value=numbers)
def test_the_file_and_the_input_are_checked_alike(where: tuple[str, str], value: Any) -> None:
    """Except for a whole number written as a float: JSON has one kind of number, TOML has two."""
    section, key = where
    if isinstance(value, float) and value.is_integer():
        value = value + 0.5
    given_settings = {section: {key: value}}
    try:
        VALIDATE(given_settings)
        accepted_as_input = True
    except fastjsonschema.JsonSchemaValueException:
        accepted_as_input = False
    try:
        Config.model_validate(given_settings)
        accepted_as_file = True
    except ValidationError:
        accepted_as_file = False
    assert accepted_as_input == accepted_as_file


def test_the_stacks_settings_are_not_in_an_execution_s_input() -> None:
    sections = {"schedule", "triggers", "notifications", "budget", "concurrency", "vpc", "trail", "images"}
    assert sections <= set(Config.model_fields)
    assert not sections & set(execution_input_schema()["properties"])


def test_an_untouched_stack_starts_nothing_and_costs_nothing() -> None:
    untouched = Config()
    assert not untouched.triggers.on_new_data
    assert not untouched.vpc.create
    assert not untouched.trail.enabled
    assert untouched.concurrency.classify_provisioned_min == 0


def test_the_rules_between_settings_name_settings_that_exist() -> None:
    defaults = Config().model_dump()
    assert execution_input_schema()["x-order-rules"] == ORDER_RULES
    for left, operator, right in [*ORDER_RULES, *config.STACK_ORDER_RULES]:
        assert operator == "<="
        values = [defaults[section][key] for section, key in (rule.split(".") for rule in (left, right))]
        assert values[0] <= values[1]


def test_every_setting_has_a_description() -> None:
    for section in execution_input_schema()["properties"].values():
        for key, rules in section.get("properties", {}).items():
            assert len(rules["description"]) > 10, key


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    assert written == reference.settings(), "run: python -m workflow.reference"


def test_reading_settings_needs_no_sdk() -> None:
    code = "import sys, workflow.config; print({'boto3', 'sagemaker', 'stepfunctions', 'yaml'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "set()"
