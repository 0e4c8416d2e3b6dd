"""Faults that somebody asked the local cloud to produce, and that the engines take up when their moment comes.

Only the request is kept here; what a fault does belongs to the engine that takes it: errors and hanging calls to the
door (authorization.py), the ends of jobs to training_jobs.py, those of endpoints to endpoints.py, what models answer to
router.py, and what nobody documents to state_tasks.py.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, TypeVar, get_args

from moto.core.utils import get_service_model

from workflow.local.action_tables import SERVICES

STATE_MACHINE = "states"
"""Name of the sessions in which state machines act; a function's session has the function's name."""
STATE_HEADER = "x-kelpie-state"
"""Header of the requests of state machines: the name of the state that sends it. AWS knows no such header."""

HOOKS: tuple[str, ...] = ("moto.core.utils.get_service_model",)

StoppedJob = Literal["MaxWaitTimeExceeded", "MaxRuntimeExceeded", "Stopped"]
Behaviour = Literal["slow", "wrong", "failing"]
_MAX_COUNT = 10_000
_MAX_SECONDS = 3600.0
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]*")


@dataclass(kw_only=True)
class Fault:
    """One thing that shall go wrong. `count`: how often it still happens."""

    kind: ClassVar[str]
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse what could never happen. Raises: ValueError."""
        expected: dict[str, Any] = {"int": int, "float": (int, float), "str": str, "bool": bool}
        for field in fields(self):
            value, types = getattr(self, field.name), expected.get(str(field.type), str)
            if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
                raise ValueError(f"Invalid {self.kind} ({field.name}={value!r}), expected {field.type}")
        self.require(1 <= self.count <= _MAX_COUNT, f"count={self.count}", f"a count from 1 to {_MAX_COUNT}")
        self.check()

    def check(self) -> None:
        """The rules of this kind. Raises: ValueError."""

    def require(self, holds: bool, seen: str, expected: str) -> None:
        """Raises: ValueError unless it holds."""
        if not holds:
            raise ValueError(f"Invalid {self.kind} ({seen}), expected {expected}")


@dataclass(kw_only=True)
class ApiFault(Fault):
    """Something wrong with requests for one operation.

    operation: as in "sagemaker:CreateModel"; the service by IAM's prefix or botocore's name.
    caller: name of the role session whose requests are meant.
    state: only those that this state of a state machine sends; "" for all.
    """

    operation: str
    caller: str = STATE_MACHINE
    state: str = ""

    def check(self) -> None:
        """The operation must be one that the local cloud knows."""
        self._service, self._name = find_operation(self.operation)
        self.require(bool(self.caller), f"caller={self.caller!r}", "the name of a role session")

    def concerns(self, service: str, operation: str, caller: str, state: str) -> bool:
        """Whether it is meant for this request."""
        mine = (self._service, self._name, self.caller, self.state or state)
        return mine == (service, operation, caller, state)


@dataclass(kw_only=True)
class ApiError(ApiFault):
    """An error that an operation answers instead of being executed.

    Any code is taken, because AWS sends codes that its own models do not list (SageMaker's ValidationException and
    ThrottlingException, all of S3's); callers see those under the service's generic error, see `is_modelled`.
    """

    kind: ClassVar[str] = "api-error"
    code: str
    message: str = "Injected fault"

    def check(self) -> None:
        """The code must look like one."""
        super().check()
        self.require(bool(_CODE.fullmatch(self.code)), f"code={self.code!r}", "a code such as ThrottlingException")

    @property
    def is_modelled(self) -> bool:
        """Whether botocore's model of the service has this error, so that callers see it under its own name."""
        shapes = get_service_model(self._service).error_shapes
        return any(self.code in (shape.name, shape.metadata.get("error", {}).get("code")) for shape in shapes)


@dataclass(kw_only=True)
class ApiHang(ApiFault):
    """The request is carried out, but its answer is held back for `seconds` (real ones, as timeouts are)."""

    kind: ClassVar[str] = "api-hang"
    seconds: float

    def check(self) -> None:
        """The answer must come some time."""
        super().check()
        self.require(0 < self.seconds <= _MAX_SECONDS, f"seconds={self.seconds}", f"more than 0, up to {_MAX_SECONDS}")


@dataclass(kw_only=True)
class SpotInterruption(Fault):
    """One reclaim of the spot instances of a managed-spot training job: the one that runs, or the next one.

    after_checkpoints: it happens once this many checkpoint files of the running attempt are in S3.
    notice_seconds: real seconds between SIGTERM and SIGKILL; 0 for SIGKILL without any notice.
    host: the only host that is reclaimed, such as "algo-2"; "" for all of them. The job restarts as a whole.
    """

    kind: ClassVar[str] = "spot-interruption"
    after_checkpoints: int = 1
    notice_seconds: float = 2.0
    host: str = ""

    def check(self) -> None:
        """Source of the two minutes: EC2 user guide, "Spot Instance interruption notices", Nov 2026."""
        self.require(self.after_checkpoints >= 0, f"after_checkpoints={self.after_checkpoints}", "0 or more")
        self.require(0 <= self.notice_seconds <= 120, f"notice_seconds={self.notice_seconds}", "0 to 120")
        self.require(bool(re.fullmatch(r"(algo-\d+)?", self.host)), f"host={self.host!r}", "a host such as algo-2")


@dataclass(kw_only=True)
class TrainingFailure(Fault):
    """The training job that runs, or the next one, ends like this.

    reason: the FailureReason of a job that is Failed, such as "CapacityError: ...".
    stopped: for a job that is Stopped instead, its SecondaryStatus.
    after_checkpoints: 0 for before it has instances, else once this many checkpoint files are in S3.
    """

    kind: ClassVar[str] = "training-failure"
    reason: str = ""
    stopped: str = ""
    after_checkpoints: int = 0

    def check(self) -> None:
        """Either a reason or a secondary status."""
        allowed = get_args(StoppedJob)
        what = f"reason={self.reason!r}, stopped={self.stopped!r}"
        self.require(bool(self.reason) != bool(self.stopped), what, "either reason or stopped")
        self.require(self.stopped in ("", *allowed), what, f"stopped to be one of {', '.join(allowed)}")
        self.require(self.after_checkpoints >= 0, f"after_checkpoints={self.after_checkpoints}", "0 or more")


@dataclass(kw_only=True)
class EndpointFailure(Fault):
    """The next creation of an endpoint ends Failed; the next update is rolled back.

    rollback_fails: the update ends UpdateRollbackFailed instead of InService; the old instances still serve.
    """

    kind: ClassVar[str] = "endpoint-failure"
    reason: str = "Injected fault"
    rollback_fails: bool = False


@dataclass(kw_only=True)
class ServingFault(Fault):
    """Something wrong with the servers that carry one endpoint config."""

    endpoint_config: str = ""
    next_deployment: bool = False
    """The config of the next creation or update of an endpoint, whatever it will be called."""


@dataclass(kw_only=True)
class ModelFault(ServingFault):
    """What a model answers, changed between router and server, until it is cleared; `count` says nothing here.

    behaviour: "slow" holds each answer back for `seconds`; "failing" answers `status` instead of asking the server;
    "wrong" gives the probabilities of the server's answer to the wrong classes.
    """

    kind: ClassVar[str] = "model"
    behaviour: str
    seconds: float = 5.0
    status: int = 500

    def check(self) -> None:
        """A known behaviour, of one config."""
        allowed = get_args(Behaviour)
        self.require(self.behaviour in allowed, f"behaviour={self.behaviour!r}", f"one of {', '.join(allowed)}")
        self.require(0 < self.seconds <= _MAX_SECONDS, f"seconds={self.seconds}", f"more than 0, up to {_MAX_SECONDS}")
        self.require(500 <= self.status <= 599, f"status={self.status}", "500 to 599")
        what = f"endpoint_config={self.endpoint_config!r}, next_deployment={self.next_deployment}"
        self.require(bool(self.endpoint_config) != self.next_deployment, what, "one of the two")


@dataclass(kw_only=True)
class DeadServer(ServingFault):
    """A healthy model server dies by SIGKILL: one of the named config, or of the next deployment, or just any."""

    kind: ClassVar[str] = "dead-server"


KINDS: Mapping[str, type[Fault]] = {
    fault.kind: fault
    for fault in (ApiError, ApiHang, SpotInterruption, TrainingFailure, EndpointFailure, ModelFault, DeadServer)
}


@dataclass(frozen=True, kw_only=True)
class Undocumented:
    """What AWS documents nowhere, so that a definition has to be right either way.

    stopped_fails: how `.sync` ends for a training job that is Stopped.
    swap_generic_errors: whether SageMaker's optimised integration and its SDK integration call the errors that have
    no name of their own SageMaker.AmazonSageMakerException and SageMaker.SageMakerException, or the other way round.
    """

    stopped_fails: bool = True
    swap_generic_errors: bool = False

    def __post_init__(self) -> None:
        """Raises: ValueError for anything but true and false."""
        for name, value in asdict(self).items():
            if not isinstance(value, bool):
                raise ValueError(f"Invalid {name} {value!r}, expected true or false")


_F = TypeVar("_F", bound=Fault)


class Faults:
    """The faults still to come, and how the undocumented is played. Safe to use from any thread."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []
        self._lock = threading.Lock()
        self.undocumented = Undocumented()

    def add(self, fault: Fault) -> None:
        """From now on it may happen."""
        with self._lock:
            self._pending.append(fault)

    def clear(self) -> None:
        """Nothing goes wrong any more, and the undocumented is played as at the start."""
        with self._lock:
            self._pending.clear()
            self.undocumented = Undocumented()

    def describe(self) -> dict[str, Any]:
        """What is still to come, in the order in which it was asked for, ready for JSON."""
        with self._lock:
            pending = [{"kind": fault.kind, **asdict(fault)} for fault in self._pending]
            return {"pending": pending, "undocumented": asdict(self.undocumented)}

    def take_api_error(self, service: str, operation: str, caller: str, state: str = "") -> ApiError | None:
        """The error that this request shall get, if any."""
        return self._take(ApiError, lambda fault: fault.concerns(service, operation, caller, state))

    def take_api_hang(self, service: str, operation: str, caller: str, state: str = "") -> ApiHang | None:
        """How long the answer to this request shall be held back, if at all."""
        return self._take(ApiHang, lambda fault: fault.concerns(service, operation, caller, state))

    def take_spot_interruption(self, checkpoints: int) -> SpotInterruption | None:
        """The next interruption if its moment has come, given the checkpoints of this attempt."""
        return self._take(SpotInterruption, lambda fault: fault.after_checkpoints <= checkpoints, first_only=True)

    def take_training_failure(self, checkpoints: int) -> TrainingFailure | None:
        """How the job shall end, if its moment has come; 0 checkpoints before it has instances."""
        return self._take(TrainingFailure, lambda fault: fault.after_checkpoints <= checkpoints, first_only=True)

    def take_endpoint_failure(self) -> EndpointFailure | None:
        """How this change of an endpoint shall end, if not well."""
        return self._take(EndpointFailure, lambda _: True)

    def take_dead_server(self, endpoint_config: str) -> DeadServer | None:
        """Whether a healthy server that carries this config shall die."""

        def concerns(fault: DeadServer) -> bool:
            return not fault.next_deployment and fault.endpoint_config in ("", endpoint_config)

        return self._take(DeadServer, concerns)

    def deploying(self, endpoint_config: str) -> None:
        """An endpoint is about to get this config: what waits for the next deployment is meant for it."""
        with self._lock:
            for fault in self._pending:
                if isinstance(fault, ServingFault) and fault.next_deployment:
                    fault.endpoint_config, fault.next_deployment = endpoint_config, False

    def of_model(self, endpoint_config: str) -> list[ModelFault]:
        """What is wrong with the answers of the servers that carry this config."""
        with self._lock:
            found = [fault for fault in self._pending if isinstance(fault, ModelFault)]
        return [fault for fault in found if fault.endpoint_config == endpoint_config]

    def _take(self, kind: type[_F], concerns: Callable[[_F], bool], *, first_only: bool = False) -> _F | None:
        """Count down the first fault of this kind that concerns the caller, and return it."""
        with self._lock:
            of_kind = [fault for fault in self._pending if isinstance(fault, kind)]
            for fault in of_kind[:1] if first_only else of_kind:
                if concerns(fault):
                    fault.count -= 1
                    if fault.count == 0:
                        self._pending = [each for each in self._pending if each is not fault]
                    return fault
        return None


def fault_of(kind: str, **values: Any) -> Fault:
    """The fault of that kind with these values.

    Raises:
        ValueError: an unknown kind, or a senseless value; both say what is allowed.
        TypeError: an unknown or missing value.
    """
    if kind not in KINDS:
        raise ValueError(f"Invalid kind {kind!r}, expected one of {sorted(KINDS)}")
    return KINDS[kind](**values)


def find_operation(text: str) -> tuple[str, str]:
    """Service and operation of "sagemaker:CreateModel"; the service by IAM's prefix or botocore's name.

    Raises:
        ValueError: if the local cloud has no such operation.
    """
    prefix, _, name = text.partition(":")
    named = {s: entry for s, entry in SERVICES.items() if prefix in (s, entry.prefix)}
    for service, entry in named.items():
        if name in entry.operations:
            return service, name
    if not named:
        raise ValueError(f"Invalid operation {text!r}, expected SERVICE:OPERATION with one of {', '.join(SERVICES)}")
    known = [operation for entry in named.values() for operation in entry.operations]
    close = get_close_matches(name, known, n=3) or sorted(known)
    raise ValueError(f"Invalid operation {text!r}, expected one of {', '.join(f'{prefix}:{one}' for one in close)}")
