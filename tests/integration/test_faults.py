"""Each Task state of the definition fails, on first deployment and on update; and jobs, endpoints and models go wrong.

The cases of the first test are generated: its states are those of the definition, and what must come of a failure
follows from the definition's graph (drills.py). Every execution is real, and each leaves a row in build/faults, of
which tests/fault_table.py makes docs/reference/faults.md.
"""

from __future__ import annotations

import json
import random
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from integration.clients import Clients
from integration.drills import FIRST_FAILURE, MODES, Machine, Mode
from integration.harness import LOCK_KEY, LocalCloud, Notifications, eventually, left_behind, lock_owner, run_of
from PIL import Image

from workflow import config, datasets, executions
from workflow.deployment import stack
from workflow.local import cloud

pytestmark = pytest.mark.timeout(900)  # a case may have to train twice, on a machine that does other things too

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "build" / "faults"
# The definition itself would need the Step Functions SDK in every collection; a contract test keeps the two equal.
MACHINE = Machine(json.loads((ROOT / "tests/contracts/golden/definition.json").read_text()))

TIME_SCALE = 300.0
TINY: dict[str, Any] = {
    "training": {
        "epochs": 1,
        "image_size": 32,
        "instance_count": 1,
        "batch_size": 8,
        "learning_rate": 0.02,
        "max_runtime_seconds": 600,
    },
    "gate": {"min_test_accuracy": 0.0, "max_regression": 1.0},
    "smoke_test": {"min_accuracy": 0.6, "max_latency_ms": 60_000},
}
"""One epoch tells red pictures from blue ones; a model that takes one for the other fails the smoke test."""

BROKEN = "InternalFailure"
"""Source: SageMaker API reference, "Common Errors", Nov 2026; no model lists it, so it comes as the generic error."""
BUSY = {
    "dynamodb": "ProvisionedThroughputExceededException",
    "lambda": "TooManyRequestsException",
    "s3": "SlowDown",
    "sns": "Throttled",
}
"""How a service says that it is busy, if not by ThrottlingException."""
OFTEN = 100
"""More often than any Retry tries."""


def red_and_blue(folder: Path) -> Path:
    """Sixty small pictures to learn from and a dozen each to validate and test."""
    rng = random.Random(0)
    for split, count in (("train", 30), ("valid", 6), ("test", 6)):
        for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                shade = tuple(channel + rng.randint(-25, 25) for channel in colour)
                Image.new("RGB", (40, 40), shade).save(folder / split / name / f"{number}.png")
    return folder


@dataclass
class Drill:
    """Executions that something happens to, in one local cloud."""

    cloud: LocalCloud
    settings: dict[str, Any]
    notifications: Notifications
    earlier_training: dict[Mode, str] = field(default_factory=dict)
    """A completed training job that an execution in this mode may resume from."""
    brought_back: str = ""
    """The ARN of the version that the last rollback asked for."""
    _ended: str = ""

    # Before

    def prepare(self, mode: Mode) -> None:
        """An endpoint in service, or none at all and nothing that remembers one."""
        self.brought_back = ""  # what an earlier drill brought back may have been pruned since
        if self.serving() is None and mode == "update":
            self.deploy_first()
        elif self.serving() is not None and mode == "first deployment":
            self.remove_endpoint()

    def deploy_first(self) -> None:
        """An ordinary first deployment."""
        execution = self.execute("first deployment")
        assert execution.status == "SUCCEEDED", execution.cause

    def remove_endpoint(self) -> None:
        """As if there had never been one."""
        account, outputs = self.cloud.account, self.cloud.outputs
        account.client("sagemaker").delete_endpoint(EndpointName="kelpie")
        eventually(lambda: self.serving() is None, "the end of the endpoint")
        pointer = {"pk": {"S": "kelpie#serving"}}
        account.client("dynamodb").delete_item(TableName=outputs.lock_table, Key=pointer)
        account.client("s3").delete_object(Bucket=outputs.artifact_bucket, Key="champion/model.tar.gz")

    def serving(self) -> str | None:
        """The endpoint config that is in service; None without an endpoint."""
        try:
            endpoint = self.cloud.endpoint()
        except ClientError as error:
            if "Could not find endpoint" not in str(error):
                raise
            return None
        assert endpoint["EndpointStatus"] in ("InService", "Deleting"), endpoint
        return str(endpoint["EndpointConfigName"])

    def approved_versions(self) -> list[str]:
        """The ARNs of the versions that may be rolled back to."""
        versions = self.cloud.account.client("sagemaker").list_model_packages(
            ModelPackageGroupName=self.cloud.outputs.model_package_group, ModelApprovalStatus="Approved"
        )["ModelPackageSummaryList"]
        return [version["ModelPackageArn"] for version in versions]

    def ended_execution(self) -> str:
        """The ARN of an execution that does not run any more."""
        if not self._ended:
            self._ended = self.cloud.wait(self._start({"training": {"epochs": 0}})).arn
        return self._ended

    # The execution

    def execute(self, mode: Mode, *, may_resume: bool = True, **changes: dict[str, Any]) -> executions.Execution:
        """Run one, from an earlier training job of the same mode where that is allowed."""
        execution_input = {name: {**section} for name, section in self.settings.items()}
        if may_resume and mode in self.earlier_training:
            execution_input["resume"] = {"training_job": self.earlier_training[mode]}
        for section, values in changes.items():
            execution_input.setdefault(section, {}).update(values)
        execution = self.cloud.wait(self._start(execution_input), timeout_seconds=600)
        name = execution.training_job
        if name:
            jobs = self.cloud.account.client("sagemaker").list_training_jobs(StatusEquals="Completed")
            if name in {job["TrainingJobName"] for job in jobs["TrainingJobSummaries"]}:
                self.earlier_training[mode] = name
        return execution

    def _start(self, execution_input: dict[str, Any]) -> str:
        execution_input.setdefault("data", {"s3_uri": self.cloud.data_s3_uri})
        return executions.start(self.cloud.account, self.cloud.outputs.state_machine_arn, execution_input)

    # After

    def check_failed(self, execution: executions.Execution, states: set[str], before: str | None) -> None:
        """It failed in one of these states, and everything is as before, but for the lock and the message."""
        assert execution.status == "FAILED", f"{states} failed, but the execution ended {execution.status}"
        assert any(state in execution.cause for state in states), f"none of {states} is in {execution.cause!r}"
        assert self.serving() == before, "something else serves"
        left = [what for what in left_behind(self.cloud, execution) if not what.startswith("the lock")]
        assert left == []
        assert self.brought_back in ("", *self.approved_versions()), "an earlier version is not approved any more"

    def check_succeeded(self, execution: executions.Execution) -> None:
        """Its own config serves."""
        assert execution.status == "SUCCEEDED", f"{execution.error}: {execution.cause}"
        assert run_of(execution) in (self.serving() or ""), "it does not serve what it made"
        jobs = self.cloud.account.client("sagemaker").list_training_jobs(StatusEquals="InProgress")
        assert jobs["TrainingJobSummaries"] == []

    def check_told(self, execution: executions.Execution, *, lock_is_free: bool = True, is_told: bool = True) -> None:
        """The lock is free, and somebody was told; `False` for what the fault itself prevents."""
        # One that was stale before stays so when the fault did not let this execution take it over.
        assert set(lock_owner(self.cloud)) <= {self._ended if lock_is_free else execution.arn}
        assert bool(self.notifications.about(execution)) == is_told
        # The next execution would take a stale lock over, as the drill of TakeOverLock shows.
        table = self.cloud.outputs.lock_table
        self.cloud.account.client("dynamodb").delete_item(TableName=table, Key=LOCK_KEY)


# Where special ways begin: what has to happen first, and what it changes in the input


def stale_lock(drill: Drill) -> dict[str, Any]:
    item = {**LOCK_KEY, "owner": {"S": drill.ended_execution()}}
    drill.cloud.account.client("dynamodb").put_item(TableName=drill.cloud.outputs.lock_table, Item=item)
    return {}


def lock_just_released(drill: Drill) -> dict[str, Any]:
    held = "ConditionalCheckFailedException"
    drill.cloud.connection.fail_api("dynamodb:UpdateItem", held, state="AcquireLock")
    return {}


def no_spot_capacity(drill: Drill) -> dict[str, Any]:
    drill.cloud.connection.add_fault("training-failure", reason="CapacityError: no instances left")
    return {}


def an_earlier_job(drill: Drill) -> dict[str, Any]:
    job = next(iter(drill.earlier_training.values()), f"kelpie-{'0' * 32}-0")
    return {"resume": {"training_job": job}}


def an_earlier_version(drill: Drill) -> dict[str, Any]:
    if not drill.approved_versions():
        drill.deploy_first()
        drill.remove_endpoint()
    drill.brought_back = drill.approved_versions()[0]
    return {"rollback": {"model_package_arn": drill.brought_back}}


def another_instance_type(_: Drill) -> dict[str, Any]:
    return {"hosting": {"instance_type": "ml.m5.large"}}


def an_earlier_failure(drill: Drill) -> dict[str, Any]:
    drill.cloud.connection.fail_api(MACHINE.operation(FIRST_FAILURE), BROKEN, count=OFTEN, state=FIRST_FAILURE)
    return {}


SET_UPS: dict[str, Callable[[Drill], dict[str, Any]]] = {
    "": lambda _: {},
    "ReadLock": stale_lock,
    "AcquireFreedLock": lock_just_released,
    "DescribeEarlierTraining": an_earlier_job,
    "DescribeVersion": an_earlier_version,
    "DescribeSpotTraining": no_spot_capacity,
    "TrainOnDemand": no_spot_capacity,
    "DeregisterScalableTarget": another_instance_type,
    "CleanUp": an_earlier_failure,
}


# The drills


@contextmanager
def drilling(home: Path) -> Iterator[Drill]:
    """A local cloud of its own whose waits are short."""
    settings = config.load(None)
    connection = cloud.up(home, region=settings.aws.region, time_scale=TIME_SCALE)
    try:
        account = connection.account()
        outputs = stack.deploy(account, settings)
        # It would sweep in the middle of a drill whose lock is stale on purpose.
        account.client("events").disable_rule(Name="kelpie-look-around")
        uri = datasets.upload(account, outputs.data_bucket, red_and_blue(home.parent / "pictures"))
        local = LocalCloud(home, connection, account, outputs, uri)
        yield Drill(local, TINY, Notifications(local))
    finally:
        cloud.down(home)


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    with drilling(tmp_path_factory.mktemp("faults") / "local") as drill:
        yield drill


@pytest.fixture
def of_session(local_cloud: LocalCloud) -> Iterator[Drill]:
    """The local cloud of all integration tests: what happens in it must leave no trace."""
    yield Drill(local_cloud, TINY, Notifications(local_cloud))
    local_cloud.connection.clear_faults()


@pytest.fixture(autouse=True)
def no_fault_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "drill" in request.fixturenames:
        request.getfixturevalue("drill").cloud.connection.clear_faults()


def cases() -> Iterator[Any]:
    """Each mode with each Task, but for Tasks that no execution in this mode comes to."""
    for mode in MODES:
        for task in MACHINE.tasks:
            try:
                applies = MACHINE.way(task, mode) is not None
            except LookupError:
                applies = True  # the test says what is missing
            if applies:
                group = pytest.mark.xdist_group(f"faults on {mode}")
                yield pytest.param(mode, task, id=f"{mode}-{task}", marks=group)


def grouped(modes: Sequence[Mode]) -> list[Any]:
    """The modes, each for a process of its own when there are several (`make test-all`)."""
    return [pytest.param(mode, id=mode, marks=pytest.mark.xdist_group(f"faults on {mode}")) for mode in modes]


def be_busy(drill: Drill, task: str) -> None:
    """Let the service that a Task calls be busy once."""
    operation = MACHINE.operation(task)
    code = BUSY.get(operation.partition(":")[0], "ThrottlingException")
    drill.cloud.connection.fail_api(operation, code, "Rate exceeded", state=task)


def break_state(drill: Drill, mode: Mode, task: str, way: str) -> None:
    """Let one Task fail for good, and check what comes of it."""
    before = drill.serving()
    changes = SET_UPS[way](drill)
    drill.cloud.connection.fail_api(MACHINE.operation(task), BROKEN, count=OFTEN, state=task)
    # --state is what tells this request from others for the same operation
    command = ["api-error", MACHINE.operation(task), BROKEN, "--count", str(OFTEN), "--state", task]
    may_resume = way != "DescribeVersion" and MACHINE.uses_earlier_training(task)
    execution = drill.execute(mode, may_resume=may_resume, **changes)

    assert execution.statuses().get(task) == "CAUGHT", f"it never failed in {task}: {execution.statuses()}"
    action = MACHINE.operation(task)
    lock_is_free, is_told = not task.startswith("ReleaseLock"), action != "sns:Publish"
    drill.check_told(execution, lock_is_free=lock_is_free, is_told=is_told)
    if MACHINE.goes_on(task):
        drill.check_succeeded(execution)
        assert execution.output is not None
        assert MACHINE.warned(task) in execution.output["warnings"]
    else:
        drill.check_failed(execution, MACHINE.named(task), before)
    write_row(mode, task, f"{action} answers {BROKEN}", command, execution, way=way)


def write_row(
    mode: Mode, where: str, fault: str, command: list[str], execution: executions.Execution, way: str = ""
) -> None:
    """Keep what was seen for the table in docs/reference/faults.md."""
    row = {
        "mode": mode,
        "state": where,
        "fault": fault,
        "way": way,
        "command": shlex.join(["kelpie", "local", "fault", *command]) if command else "",
        "status": execution.status,
        "error": execution.error,
        "warnings": sorted((execution.output or {}).get("warnings", {})),
        "seconds": round(execution.seconds, 1),
        "date": time.strftime("%Y-%m-%d"),
    }
    ROWS.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in f"{mode} {where} {fault}")
    (ROWS / f"{name}.json").write_text(json.dumps(row, indent=2))


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "task"), list(cases()))
def test_a_task_that_fails_ends_safe(drill: Drill, mode: Mode, task: str) -> None:
    way = MACHINE.way(task, mode)
    assert way is not None
    drill.prepare(mode)
    if way == "" and mode == "update" and MACHINE.goes_on(task):
        # It will succeed: as a rollback to the version that serves, so that the next case need not train anew.
        way = "DescribeVersion"
    break_state(drill, mode, task, way)


@pytest.mark.slow
@pytest.mark.parametrize("mode", grouped(MODES))
@pytest.mark.parametrize("swapped", [False, True], ids=["names as reported", "names swapped"])
def test_every_service_may_be_busy_once_at_every_state(drill: Drill, mode: Mode, swapped: bool) -> None:
    drill.prepare(mode)
    drill.cloud.connection.play(swap_generic_errors=swapped)
    patient = list(filter(MACHINE.retries_when_busy, MACHINE.tasks))
    for task in patient:
        be_busy(drill, task)
    execution = drill.execute(mode)
    drill.check_succeeded(execution)
    drill.check_told(execution)
    assert execution.output is not None
    assert execution.output["warnings"] == {}
    spared = {fault["state"] for fault in drill.cloud.connection.faults()["pending"]}
    visited = {visit.name for visit in execution.visits if visit.type == "Task"}
    assert not spared & visited
    names = ", SageMaker's generic error names swapped" if swapped else ""
    others = sorted(set(MACHINE.tasks) - set(patient))
    where = f"each on the way but {', '.join(others)}" if others else "each on the way"
    write_row(mode, where, f"the service is busy once{names}", [], execution)


# Jobs that end badly


@pytest.mark.slow
@pytest.mark.xdist_group("faults on first deployment")
@pytest.mark.parametrize(
    ("ending", "stopped_fails", "falls_back"),
    [
        ({"reason": "CapacityError: Unable to provision requested ML compute capacity"}, True, True),
        ({"reason": "AlgorithmError: ExecuteUserScriptError: ExitCode 1"}, True, False),
        ({"reason": "InternalServerError: We encountered an internal error"}, True, False),
        ({"stopped": "MaxWaitTimeExceeded"}, True, True),
        ({"stopped": "MaxWaitTimeExceeded"}, False, True),
        ({"stopped": "MaxRuntimeExceeded"}, True, False),
        ({"stopped": "MaxRuntimeExceeded"}, False, False),
        ({"stopped": "Stopped"}, True, False),
        ({"stopped": "Stopped"}, False, False),
    ],
    ids=lambda value: next(iter(value.values())).partition(":")[0] if isinstance(value, dict) else str(value),
)
def test_only_a_lack_of_capacity_goes_on_on_demand(
    drill: Drill, ending: dict[str, str], stopped_fails: bool, falls_back: bool
) -> None:
    drill.prepare("first deployment")
    drill.cloud.connection.play(stopped_fails=stopped_fails)
    drill.cloud.connection.add_fault("training-failure", **ending)
    execution = drill.execute("first deployment", may_resume=False)
    assert ("TrainOnDemand" in execution.statuses()) == falls_back
    drill.check_told(execution)
    if falls_back:
        drill.check_succeeded(execution)
        assert execution.output is not None
        assert "Train" in execution.output["warnings"]
    else:
        drill.check_failed(execution, {"Train"}, None)
    (key, value) = next(iter(ending.items()))
    played = "" if "reason" in ending else f", .sync {'fails' if stopped_fails else 'succeeds'} for it"
    name = f"the job ends {'Stopped, ' if key == 'stopped' else 'Failed, '}{value.partition(':')[0]}{played}"
    write_row("first deployment", "Train", name, ["training-failure", f"--{key}", value], execution)


# Endpoints and models that do not hold


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "rollback_fails"),
    [
        pytest.param("first deployment", False, marks=pytest.mark.xdist_group("faults on first deployment")),
        pytest.param("update", False, marks=pytest.mark.xdist_group("faults on update")),
        pytest.param("update", True, marks=pytest.mark.xdist_group("faults on update")),
    ],
)
def test_an_endpoint_that_cannot_change_is_as_before(drill: Drill, mode: Mode, rollback_fails: bool) -> None:
    drill.prepare(mode)
    version = an_earlier_version(drill)
    before = drill.serving()
    drill.cloud.connection.add_fault("endpoint-failure", reason="no host left", rollback_fails=rollback_fails)
    execution = drill.execute(mode, may_resume=False, **version)
    rolled_back = mode == "update" and not rollback_fails
    drill.check_failed(execution, {"UpdateEndpoint" if rolled_back else "WaitForEndpoint"}, before)
    drill.check_told(execution)
    assert "no host left" in execution.cause
    ending = "rolled back" if rolled_back else "UpdateRollbackFailed" if rollback_fails else "Failed"
    command = ["endpoint-failure", "--reason", "no host left", *(["--rollback-fails"] * rollback_fails)]
    write_row(mode, "WaitForEndpoint", f"the endpoint ends {ending}", command, execution)


@pytest.mark.slow
@pytest.mark.parametrize("mode", grouped(MODES))
def test_the_way_back_from_a_touched_endpoint_waits_for_busy_services(drill: Drill, mode: Mode) -> None:
    drill.prepare(mode)
    version = an_earlier_version(drill)
    before = drill.serving()
    drill.cloud.connection.fail_api(MACHINE.operation("SmokeTest"), BROKEN, count=OFTEN, state="SmokeTest")
    for task in filter(MACHINE.is_way_back, MACHINE.tasks):
        be_busy(drill, task)
    execution = drill.execute(mode, may_resume=False, **version)
    drill.check_failed(execution, {"SmokeTest"}, before)
    drill.check_told(execution)
    spared = {fault["state"] for fault in drill.cloud.connection.faults()["pending"]} - {"SmokeTest"}
    assert not spared
    command = ["api-error", MACHINE.operation("CleanUp"), BUSY["lambda"], "--state", "CleanUp"]
    write_row(mode, "SmokeTest", "it fails, and every state of the way back is busy once", command, execution)


@pytest.mark.slow
@pytest.mark.parametrize("mode", grouped(MODES))
def test_a_model_that_answers_wrongly_does_not_pass_the_smoke_test(drill: Drill, mode: Mode) -> None:
    drill.prepare(mode)
    version = an_earlier_version(drill)
    before = drill.serving()
    drill.cloud.connection.add_fault("model", behaviour="wrong", next_deployment=True)
    execution = drill.execute(mode, may_resume=False, **version)
    drill.check_failed(execution, {"SmokeTest"}, before)
    drill.check_told(execution)
    write_row(mode, "SmokeTest", "the model answers wrongly", ["wrong-model"], execution)


@pytest.mark.slow
@pytest.mark.xdist_group("faults on update")
def test_a_model_that_fails_is_taken_back_by_the_alarm(drill: Drill) -> None:
    drill.prepare("update")
    version = an_earlier_version(drill)
    before = drill.serving()
    drill.cloud.connection.add_fault("model", behaviour="failing", next_deployment=True)
    with Clients(drill.cloud, next((drill.cloud.home.parent / "pictures").glob("test/*/*"))):
        execution = drill.execute("update", may_resume=False, **version)
    drill.check_failed(execution, {"UpdateEndpoint"}, before)
    drill.check_told(execution)
    assert "alarm" in execution.cause
    write_row("update", "UpdateEndpoint", "the new model answers 500", ["failing-model"], execution)


@pytest.mark.slow
@pytest.mark.parametrize("mode", grouped(MODES))
def test_a_server_that_dies_during_the_deployment_is_replaced(drill: Drill, mode: Mode) -> None:
    drill.prepare(mode)
    version = an_earlier_version(drill)
    drill.cloud.connection.add_fault("dead-server", next_deployment=True)
    execution = drill.execute(mode, may_resume=False, **version)
    drill.check_succeeded(execution)
    drill.check_told(execution)
    assert drill.cloud.connection.faults()["pending"] == [], "no server was killed"
    write_row(mode, "WaitForEndpoint", "a new server dies", ["dead-server", "--next-deployment"], execution)


@pytest.mark.slow
@pytest.mark.parametrize("mode", grouped(MODES))
def test_a_call_that_hangs_beyond_its_timeout_leaves_nothing(drill: Drill, mode: Mode) -> None:
    drill.prepare(mode)
    version = an_earlier_version(drill)
    before = drill.serving()
    seconds = MACHINE.states["CreateModel"]["TimeoutSeconds"] + 3
    operation = MACHINE.operation("CreateModel")
    drill.cloud.connection.add_fault("api-hang", operation=operation, seconds=seconds, state="CreateModel")
    execution = drill.execute(mode, may_resume=False, **version)
    assert execution.error == "States.Timeout"
    drill.check_failed(execution, {"CreateModel"}, before)
    drill.check_told(execution)
    command = ["api-hang", operation, str(seconds), "--state", "CreateModel"]
    write_row(mode, "CreateModel", f"{operation} hangs", command, execution)


# In the local cloud of the session, whose waits are long enough for slow answers


@pytest.mark.slow
def test_a_model_that_is_slow_is_taken_back_by_the_alarm(
    of_session: Drill, first_execution: executions.Execution, dogs_folder: Path
) -> None:
    before = of_session.serving()
    version = an_earlier_version(of_session)
    of_session.cloud.connection.add_fault("model", behaviour="slow", seconds=2.5, next_deployment=True)
    with Clients(of_session.cloud, next(dogs_folder.glob("test/*/*.jpg")), count=4):
        execution = of_session.execute("update", **version)
    of_session.check_failed(execution, {"UpdateEndpoint"}, before)
    of_session.check_told(execution)
    assert "latency" in execution.cause
    command = ["slow-model", "--seconds", "2.5"]
    write_row("update", "UpdateEndpoint", "the new model takes 2.5 s to answer", command, execution)


def test_a_task_of_the_fall_back_fails_and_nothing_is_left(of_session: Drill) -> None:
    """A sample of the drills above, in the time of `make test`."""
    mode: Mode = "update" if of_session.serving() else "first deployment"
    break_state(of_session, mode, "TrainOnDemand", "TrainOnDemand")


def test_the_smoke_test_fails_on_an_update_and_the_old_model_serves_on(
    of_session: Drill, first_execution: executions.Execution
) -> None:
    """A sample of the drills above, in the time of `make test`; a rollback needs no training."""
    break_state(of_session, "update", "SmokeTest", "DescribeVersion")


@pytest.mark.parametrize("task", MACHINE.tasks)
def test_the_drills_know_a_way_to_every_task(task: str) -> None:
    ways = {MACHINE.way(task, mode) for mode in MODES} - {None}
    assert ways
    assert ways <= set(SET_UPS)
