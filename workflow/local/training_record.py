"""What DescribeTrainingJob says of a running job: status, transitions, and the seconds that are billed."""

from __future__ import annotations

import time
from typing import Any

from moto.core.utils import utcnow

MAX_FAILURE_CHARACTERS = 1024
"""Source: botocore 1.44.5, sagemaker FailureReason."""


class TrainingRecord:
    """Writes into moto's training job, whose attributes DescribeTrainingJob returns under their API names.

    Every attribute that a job can have is set here at the start, because moto iterates over them while we write.
    """

    def __init__(self, job: Any) -> None:
        """Take over a job that moto has just made, which calls it completed."""
        self._job = job
        self._billed_seconds = 0.0
        self._billing_since: float | None = None
        job.training_job_status = "InProgress"
        job.secondary_status = "Starting"
        job.secondary_status_transitions = []
        job.final_metric_data_list = []
        for name in (
            "model_artifacts",
            "failure_reason",
            "training_start_time",
            "training_end_time",
            "training_time_in_seconds",
            "billable_time_in_seconds",
        ):
            setattr(job, name, None)

    @property
    def arn(self) -> str:
        """The job's ARN."""
        return str(self._job.arn)

    @property
    def status(self) -> str:
        """InProgress, Stopping, or how the job ended."""
        return str(self._job.training_job_status)

    def enter(self, secondary: str, message: str, *, is_end: bool = False) -> None:
        """Note the next step of the job."""
        now = utcnow()
        before = list(self._job.secondary_status_transitions)
        if before and "EndTime" not in before[-1]:
            before[-1] = {**before[-1], "EndTime": now}
        step = {"Status": secondary, "StartTime": now, "StatusMessage": message}
        if is_end:
            step["EndTime"] = now
        self._job.secondary_status_transitions = [*before, step]
        self._job.secondary_status = secondary
        self._job.last_modified_time = now

    def stopping(self) -> None:
        """Somebody wants the job to stop."""
        self._job.training_job_status = "Stopping"
        self.enter("Stopping", "Stopping the training job")

    def start_billing(self) -> None:
        """The job has instances from now on."""
        self._billing_since = time.monotonic()
        if self._job.training_start_time is None:
            self._job.training_start_time = utcnow()

    def stop_billing(self) -> None:
        """The job has no instances any more."""
        if self._billing_since is not None:
            self._billed_seconds += time.monotonic() - self._billing_since
            self._billing_since = None

    def set_metrics(self, final_metric_data: list[dict[str, Any]]) -> None:
        """The metrics so far."""
        self._job.final_metric_data_list = final_metric_data

    def set_model(self, uri: str) -> None:
        """Where the model artifact lies."""
        self._job.model_artifacts = {"S3ModelArtifacts": uri}

    def finish(self, status: str, secondary: str, message: str, failure_reason: str | None = None) -> None:
        """End the job. The status comes last: who sees it sees everything else too."""
        self.stop_billing()
        job = self._job
        now = utcnow()
        job.failure_reason = failure_reason
        job.training_end_time = now
        if job.training_start_time is not None:
            elapsed = (now - job.training_start_time).total_seconds()
            job.training_time_in_seconds = max(1, round(elapsed))
            job.billable_time_in_seconds = max(1, round(min(self._billed_seconds, elapsed)))
        self.enter(secondary, message[:MAX_FAILURE_CHARACTERS], is_end=True)
        job.training_job_status = status
