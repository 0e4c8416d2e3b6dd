"""A failed execution is explained the same way by `kelpie describe`, the notification and the Fail state."""

from __future__ import annotations

import pytest
from integration.harness import LocalCloud, Notifications

from workflow.summary import summarize, to_text


@pytest.mark.slow
def test_describe_the_notification_and_the_fail_state_carry_one_sentence(local_cloud: LocalCloud) -> None:
    account, notifications = local_cloud.account, Notifications(local_cloud)

    execution = local_cloud.run(data={"s3_uri": local_cloud.data_s3_uri.replace("/datasets/", "/nothing/")})

    assert execution.status == "FAILED"
    summary = summarize(account, execution)
    first_line, *others = to_text(summary).splitlines()
    assert first_line == execution.cause == summary["sentence"]
    assert first_line.startswith("CheckData failed: ")
    assert any("InvalidData" in line for line in summary["log_tail"]), "not the log of the invocation that failed"
    assert [f"  | {line}" for line in summary["log_tail"]] == others[: len(summary["log_tail"])]
    assert f"fix: {summary['fix']}" in others
    assert f"run: {summary['run']}" in others
    assert summary["fix"] in first_line
    assert summary["run"].startswith("kelpie start --local --input ")
    (sent,) = notifications.about(execution)
    assert sent.endswith(f"{execution.error}: {execution.cause}")
