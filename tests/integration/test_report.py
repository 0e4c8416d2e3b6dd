"""The report of a real execution: every section has what the execution left behind."""

from __future__ import annotations

from pathlib import Path

from integration.harness import LocalCloud

from workflow import executions
from workflow.pages import report


def test_the_report_shows_what_a_real_execution_left(
    local_cloud: LocalCloud, first_execution: executions.Execution, tmp_path: Path
) -> None:
    html = report.write(local_cloud.account, first_execution.arn, tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(html) < 1_500_000
    output = first_execution.output
    assert output
    evaluation = local_cloud.evidence(first_execution)["evaluation.json"]
    worst, predictions = evaluation["worst_pictures"], output["smoke"]["predictions"]
    assert html.count('<img src="data:image/jpeg;base64,') == len(worst) + len(predictions)
    assert all(name in html for name in evaluation["classes"])
    assert 'class="bar phase interrupted"' in html
    assert "Resumed from a checkpoint at step" in html
    assert "Not reached" not in html
    assert output["data"]["manifest_sha256"] in html
