"""Texts that are generated from the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from workflow import config
from workflow.config import Config
from workflow.reference import starter_toml


def test_the_starter_file_sets_nothing_until_a_key_is_uncommented(tmp_path: Path) -> None:
    path = tmp_path / "kelpie.toml"
    path.write_text(starter_toml(), encoding="utf-8")
    assert config.load(path) == Config()


def test_every_key_of_the_starter_file_is_allowed_and_its_value_the_default() -> None:
    uncommented = re.sub(r"^# ([a-z0-9_]+ = )", r"\1", starter_toml(), flags=re.MULTILINE)
    values = tomllib.loads(uncommented)
    assert values["data"].pop("s3_uri") == "s3://your-bucket/your-pictures/"
    assert Config.model_validate(values) == Config()
    values["data"]["s3_uri"] = ""
    assert {name: set(section) for name, section in values.items()} == {
        name: set(type(getattr(Config(), name)).model_fields) for name in Config.model_fields
    }
