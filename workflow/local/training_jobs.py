"""Training jobs: one thread follows each job from Starting to its end; its hosts are process groups of this machine.

Only the story of a job is here. Its hosts are in host_group.py and training_host.py, its input in channels.py, its
checkpoints in checkpoints.py, what DescribeTrainingJob shows of it in training_record.py.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from workflow.local import channels, transfers
from workflow.local.checkpoints import CheckpointSync
from workflow.local.engine import Engine
from workflow.local.faults import SpotInterruption
from workflow.local.host_group import HostGroup, free_port
from workflow.local.identity import AccessDenied
from workflow.local.images import ImageBuildFailed, UnknownImage
from workflow.local.logs import TrainingMetrics
from workflow.local.training_host import Cluster, EntryPointError, decoded
from workflow.local.training_record import MAX_FAILURE_CHARACTERS, TrainingRecord

SERVICE = "sagemaker.amazonaws.com"
CHECKPOINT_PATH = "/opt/ml/checkpoints"
STOP_GRACE_SECONDS = 120.0
"""Real seconds from SIGTERM to SIGKILL. Source: botocore 1.44.5, sagemaker StoppingCondition."""
CAPACITY_WAIT_AWS_SECONDS = 60.0
"""AWS seconds until other spot instances are there after a reclaim: an assumption, AWS promises nothing."""
DEFAULT_MAX_RUNTIME_SECONDS = 86_400
"""Source: botocore 1.44.5, sagemaker StoppingCondition.MaxRuntimeInSeconds."""

_POLL_SECONDS = 0.05
_METRICS_EVERY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class _Failed(Exception):
    """The job ends Failed; the text is its FailureReason."""


class _Stopped(Exception):
    """The job ends Stopped; the text is its SecondaryStatus."""


class TrainingJobRun:
    """The work behind one training job."""

    def __init__(self, engine: Engine, job: Any, request: Mapping[str, Any]) -> None:
        """`job` is moto's, `request` the validated CreateTrainingJob request."""
        self.name: str = request["TrainingJobName"]
        self._engine = engine
        self._request = request
        self._role: str = request["RoleArn"]
        self._folder: Path = engine.home / "jobs" / self.name
        self._isolated = bool(request.get("EnableNetworkIsolation"))
        self._record = TrainingRecord(job)
        self._channels = channels.by_name(request.get("InputDataConfig") or [])
        definitions = request["AlgorithmSpecification"].get("MetricDefinitions") or []
        self._metrics = TrainingMetrics(self.name, definitions)
        self._created = time.monotonic()
        self._trained_seconds = 0.0
        self._downloads: dict[str, channels.Download] = {}
        self._hosts: HostGroup | None = None
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"training-{self.name}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._record.enter("Starting", "Starting the training job")
        self._thread.start()

    def stop(self) -> None:
        """What StopTrainingJob does: SIGTERM, then SIGKILL after the grace time; returns at once."""
        self._record.stopping()
        self._stop_requested.set()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until the job has ended."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            python = self._python()
            try:
                self._end_as_asked(0)
                while self._attempt(python) is not None:
                    self._wait_for_capacity()
            except _Stopped as stopped:
                self._upload_results(always=False)
                self._finish("Stopped", str(stopped), "Training job stopped")
            else:
                self._record.enter("Uploading", "Uploading generated training model")
                self._upload_results(always=True)
                self._finish("Completed", "Completed", "Training job completed")
        except _Failed as failure:
            self._fail(str(failure))
        except (transfers.TransferFailed, AccessDenied) as error:
            self._fail(f"ClientError: {error}")
        except Exception as error:
            _log.exception("Training job %s failed inside the local cloud", self.name)
            self._fail(f"InternalServerError: the local cloud failed ({type(error).__name__}: {error})")

    def _python(self) -> Path:
        try:
            return self._engine.images.python_for(self._request["AlgorithmSpecification"]["TrainingImage"])
        except (UnknownImage, ImageBuildFailed, OSError) as error:
            raise _Failed(f"ClientError: {error}") from error

    def _attempt(self, python: Path) -> SpotInterruption | None:
        """Run all hosts once; None when every one has succeeded, else what interrupted them."""
        self._record.start_billing()
        self._record.enter("Downloading", "Downloading input data")
        hosts = self._hosts = HostGroup(self._engine, self._cluster(), self._folder / "hosts")
        self._download_input(hosts)
        sync = self._restore_checkpoints(hosts)
        if self._stop_requested.is_set():
            raise _Stopped("Stopped")
        self._record.enter("Training", "Training image download completed. Training in progress.")
        is_orderly = False
        try:
            self._start(hosts, python)
            if sync is not None:
                sync.start()
            interruption = self._supervise(hosts, sync)
            # only hosts that ended by themselves have surely written their files to the end
            is_orderly = interruption is None or not hosts.reclaim(interruption.host, interruption.notice_seconds)
        except _Stopped:
            is_orderly = True
            raise
        finally:
            was_killed = hosts.kill()
            if sync is not None:  # a host that was killed may have been in the middle of a file
                sync.stop(final=is_orderly and not was_killed)
        if interruption is not None:
            self._record.enter("Interrupted", "Training job interrupted: the spot instances were reclaimed")
            self._record.stop_billing()
            hosts.close()
            hosts.wipe()  # the way back leads through the checkpoints in S3, as it does on AWS
        return interruption

    def _wait_for_capacity(self) -> None:
        """Be without instances, and unbilled, until there are others."""
        if self._stop_requested.wait(self._engine.clock.scaled(CAPACITY_WAIT_AWS_SECONDS)):
            raise _Stopped("Stopped")
        if self._has_waited_too_long():
            raise _Stopped("MaxWaitTimeExceeded")
        self._record.enter("Starting", "Preparing the instances for training")

    # Before training

    def _cluster(self) -> Cluster:
        resources = self._request["ResourceConfig"]
        return Cluster(
            job_name=self.name,
            job_arn=self._record.arn,
            hosts=tuple(f"algo-{number}" for number in range(1, resources["InstanceCount"] + 1)),
            instance_type=resources["InstanceType"],
            master_port=free_port(),
            hyperparameters=self._request.get("HyperParameters") or {},
            channels=self._channels,
            environment=self._request.get("Environment") or {},
            checkpoint_path=(self._request.get("CheckpointConfig") or {}).get("LocalPath") or CHECKPOINT_PATH,
        )

    def _download_input(self, hosts: HostGroup) -> None:
        """Channels and source code, with the role's credentials: once for all hosts."""
        s3 = self._client("s3")
        try:
            for name, channel in self._channels.items():
                download = channels.download(s3, channel, self._folder / "channels" / name, self._downloads.get(name))
                self._downloads[name] = download
                for number, host in enumerate(hosts.hosts):
                    channels.place(channel, download, host.channel(name), number, len(hosts.hosts))
            source = self._download_source(s3)
        except transfers.TransferFailed as error:
            raise _Failed(f"ClientError: Data download failed:{error}") from error
        for host in hosts.hosts:
            try:
                host.unpack_code(source)
            except EntryPointError as error:
                raise _Failed(f"AlgorithmError: framework error: {error}") from error

    def _download_source(self, s3: Any) -> Path | None:
        """The source archive when the submit directory is an S3 URI; on AWS the container itself fetches that."""
        uri = decoded(self._request.get("HyperParameters") or {}).get("sagemaker_submit_directory")
        if not isinstance(uri, str) or not uri.startswith("s3://"):
            return None
        if self._isolated:
            raise _Failed(f"AlgorithmError: framework error: no way to {uri} from inside network isolation")
        path = self._folder / "source" / "sourcedir.tar.gz"
        transfers.download(s3, uri, path)
        return path

    def _restore_checkpoints(self, hosts: HostGroup) -> CheckpointSync | None:
        config = self._request.get("CheckpointConfig")
        if not config:
            return None
        folders = [host.checkpoints for host in hosts.hosts]
        kms_key_id = self._request["OutputDataConfig"].get("KmsKeyId")
        try:
            sync = CheckpointSync(self._client("s3"), config["S3Uri"], folders, kms_key_id)
            sync.restore()
        except transfers.TransferFailed as error:
            raise _Failed(f"ClientError: Checkpoint download failed:{error}") from error
        return sync

    def _start(self, hosts: HostGroup, python: Path) -> None:
        identity = self._engine.identity
        credentials: Mapping[str, str] = {}
        if not self._isolated:
            credentials = identity.environment(identity.assume(self._role, "SageMaker", SERVICE))
        try:
            hosts.start(python, credentials, self._client("logs"), self._metrics.observe)
        except EntryPointError as error:
            raise _Failed(f"AlgorithmError: framework error: {error}") from error

    # While training

    def _supervise(self, hosts: HostGroup, sync: CheckpointSync | None) -> SpotInterruption | None:
        began = time.monotonic()
        publish_at = began
        try:
            while True:
                codes = hosts.exit_codes()
                if any(code not in (None, 0) for code in codes.values()):
                    raise _Failed(hosts.failure_reason(codes))
                if all(code == 0 for code in codes.values()):
                    return None
                ending = self._reason_to_stop(self._trained_seconds + time.monotonic() - began)
                if ending is not None:
                    hosts.end_gently(STOP_GRACE_SECONDS)
                    raise _Stopped(ending)
                uploaded = sync.uploaded if sync is not None else 0
                if uploaded:
                    self._end_as_asked(uploaded, hosts)
                interruption = self._interruption(uploaded)
                if interruption is not None:
                    return interruption
                if time.monotonic() >= publish_at:
                    self._publish_metrics()
                    publish_at = time.monotonic() + _METRICS_EVERY_SECONDS
                time.sleep(_POLL_SECONDS)
        finally:
            self._trained_seconds += time.monotonic() - began

    def _reason_to_stop(self, trained_seconds: float) -> str | None:
        """Limits are in real seconds: work is not faster here than the machine is."""
        condition = self._request["StoppingCondition"]
        if self._stop_requested.is_set():
            return "Stopped"
        if trained_seconds > (condition.get("MaxRuntimeInSeconds") or DEFAULT_MAX_RUNTIME_SECONDS):
            return "MaxRuntimeExceeded"
        return "MaxWaitTimeExceeded" if self._has_waited_too_long() else None

    def _has_waited_too_long(self) -> bool:
        limit = self._request["StoppingCondition"].get("MaxWaitTimeInSeconds")
        return limit is not None and time.monotonic() - self._created > limit

    def _interruption(self, checkpoints: int) -> SpotInterruption | None:
        if not self._request.get("EnableManagedSpotTraining"):
            return None
        return self._engine.faults.take_spot_interruption(checkpoints)

    def _end_as_asked(self, checkpoints: int, hosts: HostGroup | None = None) -> None:
        """End as an injected fault says, if it is its moment."""
        ending = self._engine.faults.take_training_failure(checkpoints)
        if ending is None:
            return
        if ending.stopped:
            if hosts is not None:
                hosts.end_gently(STOP_GRACE_SECONDS)
            raise _Stopped(ending.stopped)
        raise _Failed(ending.reason)

    def _publish_metrics(self) -> None:
        with suppress(AccessDenied):
            self._metrics.publish(self._client("cloudwatch"))
        self._record.set_metrics(self._metrics.final_metric_data())

    # After training

    def _upload_results(self, *, always: bool) -> None:
        """Model and output data of all hosts, merged, as model.tar.gz and output.tar.gz.

        A job that was stopped has a model only if it wrote one; a completed job has one, even if it is empty.
        """
        if self._hosts is None:
            return
        output = self._request["OutputDataConfig"]
        target = f"{output['S3OutputPath'].rstrip('/')}/{self.name}/output"
        folders = {
            "model.tar.gz": [host.model for host in self._hosts.hosts],
            "output.tar.gz": [host.output / "data" for host in self._hosts.hosts],
        }
        s3 = self._client("s3")

        def make_and_upload(name: str) -> bool:
            archive = self._folder / "archives" / name
            is_empty = transfers.pack(folders[name], archive) == 0
            if is_empty and not (always and name == "model.tar.gz"):
                return False
            transfers.upload(s3, archive, f"{target}/{name}", output.get("KmsKeyId"))
            return True

        try:
            with ThreadPoolExecutor(len(folders), thread_name_prefix="upload") as pool:
                uploaded = dict(zip(folders, pool.map(make_and_upload, folders), strict=True))
        except transfers.TransferFailed as error:
            raise _Failed(f"ClientError: Artifact upload failed:{error}") from error
        if uploaded["model.tar.gz"]:
            self._record.set_model(f"{target}/model.tar.gz")

    def _fail(self, reason: str) -> None:
        reason = reason[:MAX_FAILURE_CHARACTERS]
        self._finish("Failed", "Failed", f"Training job failed: {reason}", reason)

    def _finish(self, status: str, secondary: str, message: str, failure_reason: str | None = None) -> None:
        if self._hosts is not None:
            self._hosts.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._publish_metrics()
        self._record.finish(status, secondary, message, failure_reason)
        self._engine.endings.announce(self.name)

    def _client(self, service: str) -> Any:
        return self._engine.identity.client(service, self._role, SERVICE)
