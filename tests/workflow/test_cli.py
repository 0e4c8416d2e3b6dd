"""The command line: exit codes, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from workflow.watch import sparkline

ROOT = Path(__file__).parents[2]


def kelpie(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KELPIE_HOME": str(cwd / ".kelpie")}
    return subprocess.run(
        [sys.executable, "-m", "workflow", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("start",), "kelpie start --local"),
        (("start", "--local", "--data", "nowhere"), "no data folder nowhere"),
        (("start", "--local", "--input", '{"hosting": {"program": "inference/own.py"}}'), "inference/handler.py"),
        (("start", "--local", "--input", "{"), "--input is not JSON"),
        (("start", "--local", "--input", "[1]"), "--input"),
        (("start", "--local", "--config", "missing.toml"), "missing.toml"),
        (("start", "--local", "--input", '{"data": "x"}', "--data", "s3://bucket/pictures/"), "data = 'x'"),
        (("start", "--local", "--input", '{"training": {"epoch": 1}}'), "training.epoch: there is no such key"),
        (("start", "--local", "--input", '{"training": {"epoch": 1}}'), "did you mean epochs?"),
        (("start", "--local", "--input", '{"hosting": {"min_instance_count": 9}}'), "hosting.max_instance_count = 3"),
    ],
)
def test_a_start_that_cannot_work_says_why_before_a_cloud_is_started(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = kelpie(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / ".kelpie").exists()


def test_a_wrong_key_in_the_config_exits_with_2_and_names_the_allowed_keys(tmp_path: Path) -> None:
    (tmp_path / "kelpie.toml").write_text("[training]\nepoch = 3\n")
    result = kelpie("definition", cwd=tmp_path)
    assert result.returncode == 2
    assert "training.epoch" in result.stderr
    assert "epochs" in result.stderr


@pytest.mark.parametrize(
    "command",
    [("describe",), ("stop",), ("predict", __file__), ("list",), ("watch",), ("models",), ("compare", "a", "b")],
)
def test_what_needs_a_running_cloud_says_how_to_start_one(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = kelpie(*command, cwd=tmp_path)
    assert result.returncode == 1
    assert "kelpie local up" in result.stderr


def test_the_definition_and_the_graph_are_printed_offline(tmp_path: Path) -> None:
    definition = json.loads(kelpie("definition", cwd=tmp_path).stdout)
    graph = kelpie("graph", cwd=tmp_path).stdout
    assert graph.startswith("flowchart TD")
    for state in definition["States"]:
        assert f'"{state}"' in graph


def test_debug_shows_the_traceback_of_an_error(tmp_path: Path) -> None:
    assert "Traceback" in kelpie("--debug", "start", cwd=tmp_path).stderr


def test_the_graph_as_json_has_the_states_and_the_transitions(tmp_path: Path) -> None:
    graph = json.loads(kelpie("graph", "--json", cwd=tmp_path).stdout)
    names = {node["name"] for node in graph["nodes"]}
    assert {"Train", "SmokeTest", "CleanUp"} <= names
    assert {edge["target"] for edge in graph["edges"]} <= names


def test_status_without_a_cloud_is_null_as_json(tmp_path: Path) -> None:
    result = kelpie("local", "status", "--json", cwd=tmp_path)
    assert (result.returncode, json.loads(result.stdout)) == (0, None)


def test_a_sparkline_is_at_most_as_wide_as_asked_and_falls_with_the_values() -> None:
    line = sparkline([float(value) for value in range(100, 0, -1)], width=10)
    assert len(line) == 10
    assert line[0] == "█"
    assert line[-1] == "▁"
    assert sparkline([]) == ""
    assert sparkline([1.0, 1.0]) == "▁▁"


def test_a_start_that_can_cost_more_than_the_limit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "kelpie.toml").write_text("[cost]\nmax_usd_per_execution = 0.5\n")
    refused = kelpie("start", "--local", cwd=tmp_path)
    assert refused.returncode == 2
    assert "cost.max_usd_per_execution allows 0.50" in refused.stderr
    unpriced = '{"training": {"instance_type": "ml.unheard.xlarge"}}'
    assert "no price for ml.unheard.xlarge" in kelpie("start", "--local", "--input", unpriced, cwd=tmp_path).stderr
    resumed = '{"resume": {"training_job": ""}, "gate": {"min_test_accuracy": 0.5}}'
    assert "allows 0.50" in kelpie("start", "--local", "--input", resumed, cwd=tmp_path).stderr
    assert not (tmp_path / ".kelpie").exists()


def test_the_estimate_names_each_part_the_prices_source_and_the_limit(tmp_path: Path) -> None:
    said = kelpie("cost", cwd=tmp_path).stdout
    for words in ("training", "state transitions", "a month in which nothing runs", "none", "source:"):
        assert words in said
    as_json = json.loads(kelpie("cost", "--json", cwd=tmp_path).stdout)
    assert as_json["total_usd"] == pytest.approx(sum(line["usd"] for line in as_json["execution_at_most"]["lines"]))
    assert as_json["idle_month"]["total_usd"] > as_json["deployment"]["total_usd"] > 0


def test_preflight_is_clean_with_the_default_settings_and_starts_nothing(tmp_path: Path) -> None:
    clean = kelpie("preflight", "--local", "--json", cwd=tmp_path)
    assert clean.returncode == 0
    assert {one["severity"] for one in json.loads(clean.stdout)} == {"info"}
    assert list(tmp_path.iterdir()) == []


def test_preflight_ends_with_2_when_something_would_fail(tmp_path: Path) -> None:
    (tmp_path / "kelpie.toml").write_text('[hosting]\ninstance_type = "ml.c6g.large"\n')
    sick = kelpie("preflight", cwd=tmp_path)
    assert sick.returncode == 2
    assert "error: ml.c6g.large has an ARM processor" in sick.stdout
    assert "preflight found 1 errors" in sick.stderr
    both = kelpie("preflight", "--local", "--aws", cwd=tmp_path)
    assert (both.returncode, "exclude each other" in both.stderr) == (2, True)


def test_verify_aws_knows_its_experiments_and_asks_before_it_begins(tmp_path: Path) -> None:
    unknown = kelpie("verify-aws", "no-such", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "retried-parameters" in unknown.stderr


def test_init_writes_a_config_file_once(tmp_path: Path) -> None:
    assert kelpie("init", cwd=tmp_path).stdout.strip() == "kelpie.toml"
    assert kelpie("definition", cwd=tmp_path).returncode == 0
    again = kelpie("init", cwd=tmp_path)
    assert again.returncode == 2
    assert "there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"), [(("--no-such",), "--no-such"), (("--config", "missing.toml"), "missing.toml")]
)
def test_an_up_that_cannot_work_says_why_and_the_server_that_it_began_ends(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = kelpie("local", "up", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert (tmp_path / ".kelpie" / "local" / "server.log").is_file()  # it was begun
    home = str(tmp_path / ".kelpie" / "local")
    deadline = time.monotonic() + 30
    while any(home in (process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline, "the server still runs"
        time.sleep(0.05)


def test_help_about_up_begins_no_server(tmp_path: Path) -> None:
    assert kelpie("local", "up", "--help", cwd=tmp_path).returncode == 0
    assert not (tmp_path / ".kelpie").exists()
