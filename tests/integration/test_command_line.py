"""The commands that read an account, on a real execution in a real local cloud."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from integration.harness import LocalCloud
from typer.testing import CliRunner

from workflow.cli import app
from workflow.executions import Execution

Kelpie = Callable[..., str]


@pytest.fixture
def kelpie(local_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Kelpie:
    """Run a command on the local cloud and return what it printed to stdout."""
    monkeypatch.setenv("KELPIE_HOME", str(local_cloud.home.parent))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_list_names_the_execution_with_its_status_and_accuracy(kelpie: Kelpie, first_execution: Execution) -> None:
    rows = {row["name"]: row for row in json.loads(kelpie("list", "--json"))}
    row = rows[first_execution.name]
    assert first_execution.output is not None
    assert row["status"] == "SUCCEEDED"
    assert row["test_accuracy"] == pytest.approx(first_execution.output["gate"]["test_accuracy"], abs=1e-4)
    assert row["started_by"] == "API"
    (line,) = [line for line in kelpie("list").splitlines() if first_execution.name in line]
    assert "SUCCEEDED" in line


def test_models_says_which_version_serves(kelpie: Kelpie, first_execution: Execution) -> None:
    versions = json.loads(kelpie("models", "--json"))
    assert first_execution.output is not None
    (version,) = [one for one in versions if one["arn"] == first_execution.output["package"]["ModelPackageArn"]]
    assert version["approval_status"] == "Approved"
    assert version["test_accuracy"] == pytest.approx(first_execution.output["gate"]["test_accuracy"], abs=1e-4)
    assert sum(one["serves"] for one in versions) == 1
    assert str(version["number"]) in kelpie("models")


def test_cost_prices_the_billed_seconds_and_the_transitions(kelpie: Kelpie, first_execution: Execution) -> None:
    cost = json.loads(kelpie("cost", first_execution.name, "--json"))
    assert cost["transition_count"] == len(first_execution.visits)
    assert cost["total"] == pytest.approx(cost["training"] + cost["state_transitions"])
    assert cost["prices_source"] in kelpie("cost", first_execution.name)


def test_an_execution_does_not_differ_from_itself(kelpie: Kelpie, first_execution: Execution) -> None:
    name = first_execution.name
    compared = json.loads(kelpie("compare", name, name, "--json"))
    assert compared["settings"] == []
    assert all(one["first"] == one["second"] for one in compared["measures"])
    assert "the same settings" in kelpie("compare", name, name)


def test_compare_shows_the_setting_that_differs(
    kelpie: Kelpie, local_cloud: LocalCloud, first_execution: Execution
) -> None:
    other = local_cloud.run(gate={"min_test_accuracy": 0.31}, data={"s3_uri": f"{local_cloud.data_s3_uri}nothing/"})
    compared = json.loads(kelpie("compare", first_execution.name, other.name, "--json"))
    settings = {one["name"]: (one["first"], one["second"]) for one in compared["settings"]}
    assert settings["gate.min_test_accuracy"] == (0.3, 0.31)
    assert "training.epochs" not in settings
    status = next(one for one in compared["measures"] if one["name"] == "status")
    assert (status["first"], status["second"]) == ("SUCCEEDED", "FAILED")


def test_watch_of_an_ended_execution_ends_at_once(kelpie: Kelpie, first_execution: Execution) -> None:
    assert kelpie("watch", first_execution.name) == ""


def test_logs_of_the_local_cloud_can_be_read(kelpie: Kelpie) -> None:
    assert kelpie("local", "logs", "--lines", "3").strip()


def test_logs_come_by_state_and_host(kelpie: Kelpie, first_execution: Execution) -> None:
    lines = kelpie("logs", first_execution.name).splitlines()
    assert {"Train algo-1", "Train algo-2"} <= {" ".join(line.split()[:2]) for line in lines}
    assert any(line.startswith("SmokeTest kelpie-smoke-test") for line in lines)
    only = kelpie("logs", first_execution.name, "--state", "Train", "--host", "algo-2").splitlines()
    assert only
    assert all(line.startswith("Train algo-2") for line in only)
    followed = [json.loads(line) for line in kelpie("logs", first_execution.name, "--follow", "--json").splitlines()]
    assert len(followed) == len(lines)
