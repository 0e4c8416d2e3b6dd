"""The text of the state machine: the same bytes everywhere, accepted by a linter, every change visible in review."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from workflow import definition
from workflow.config import Config

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden") / "definition.json"
DEFINITION = definition.render(Config())
PRINT = "import sys; from workflow import config, definition; sys.stdout.write(definition.render(config.Config()))"


def rendered_by_another_process(home: Path, **environment: str) -> str:
    """The definition as a process without credentials or network settings of its own prints it."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}
    # A proxy that nobody listens on: any request would fail.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    result = subprocess.run(
        [sys.executable, "-c", PRINT],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**clean, **nowhere, **environment},
    )
    return result.stdout


def test_the_golden_file_is_the_definition() -> None:
    rewrite = f"python -c '{PRINT}' > {GOLDEN.relative_to(ROOT)}"
    assert GOLDEN.read_text(encoding="utf-8") == DEFINITION, f"if that is intended: {rewrite}"


def test_two_processes_without_credentials_render_the_same_bytes(tmp_path: Path) -> None:
    assert rendered_by_another_process(tmp_path) == DEFINITION


def test_the_environment_and_the_home_folder_do_not_change_the_definition(tmp_path: Path) -> None:
    defaults = tmp_path / ".config" / "sagemaker" / "config.yaml"
    defaults.parent.mkdir(parents=True)
    defaults.write_text(
        "SchemaVersion: '1.0'\n"
        "SageMaker:\n"
        "  TrainingJob:\n"
        "    VpcConfig: {Subnets: [subnet-0], SecurityGroupIds: [sg-0]}\n"
        "    EnableInterContainerTrafficEncryption: true\n"
        "    Tags: [{Key: a, Value: b}]\n"
        "  Model:\n"
        "    EnableNetworkIsolation: false\n"
    )
    elsewhere = rendered_by_another_process(tmp_path, AWS_DEFAULT_REGION="cn-north-1", PYTHONHASHSEED="7")
    assert elsewhere == DEFINITION


def test_every_substitution_is_used_and_every_use_is_a_substitution() -> None:
    in_the_stacks_vpc = definition.render(Config.model_validate({"vpc": {"create": True}}))
    used = set(re.findall(r"\$\{(\w+)\}", DEFINITION)) | set(re.findall(r"\$\{(\w+)\}", in_the_stacks_vpc))
    assert used == definition.SUBSTITUTIONS


def test_another_config_gives_another_definition() -> None:
    other = Config.model_validate({"training": {"epochs": 3}, "project": {"name": "collie"}})
    states = definition.build(other)["States"]
    assert states["ResolveInput"]["Parameters"]["Payload"]["defaults"]["training"]["epochs"] == 3
    assert "kelpie" not in json.dumps(states).replace("kelpie:project", "").replace("kelpie:run", "")


def test_it_fits_into_step_functions() -> None:
    """Source: AWS Step Functions developer guide, service quotas: 1 MB, and 80 characters a state name."""
    text = DEFINITION
    assert len(text.encode()) < 1_000_000
    assert max(len(name) for name in json.loads(text)["States"]) <= 80


def test_the_linter_of_the_states_language_accepts_it(tmp_path: Path) -> None:
    def lint(text: str) -> tuple[int, str]:
        file = tmp_path / "definition.asl.json"
        file.write_text(text)
        result = subprocess.run(
            [sys.executable, "-m", "statelint", str(file)], capture_output=True, text=True, check=False
        )
        return result.returncode, result.stdout + result.stderr

    waiting = definition.render(Config.model_validate({"lock": {"when_held": "wait"}}))
    assert lint(waiting.replace("${Partition}", "aws")) == (0, "")
    text = DEFINITION.replace("${Partition}", "aws")
    assert lint(text) == (0, "")
    code, complaint = lint(text.replace(': "CheckData"', ': "ChekData"'))
    assert code != 0
    assert "ChekData" in complaint


@pytest.mark.parametrize("word", ["DebugHookConfig", "ProfilerConfig", "S3Operations"])
def test_what_the_sdk_may_add_is_not_in_it(word: str) -> None:
    assert word not in DEFINITION
