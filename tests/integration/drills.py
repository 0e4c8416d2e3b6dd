"""What the fault drills derive from the definition: which fault, on which way, and how it must end.

Nothing here lists states. The ways that only special circumstances open are listed by the state where each begins
(`SPECIAL_WAYS`); what lies behind them, and what follows from a failure, is read from the definition's graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

Mode = Literal["first deployment", "update"]
MODES: tuple[Mode, ...] = ("first deployment", "update")
DOORS: Mapping[Mode, str] = {"first deployment": "NoEndpointYet", "update": "EndpointIsThere"}
"""The state behind which the two kinds of deployment part."""

SPECIAL_WAYS = (
    "ReadLock",
    "AcquireFreedLock",
    "DescribeEarlierTraining",
    "DescribeVersion",
    "DescribeSpotTraining",
    "TrainOnDemand",
    "DeregisterScalableTarget",
    "CleanUp",
)
"""Where the ways begin that an ordinary execution does not take; test_faults.py has a set-up for each."""

FIRST_FAILURE = "CheckData"
"""The state that fails in the drills of the way back itself: nothing costs money yet that would have to go."""

_SERVICES = {"applicationautoscaling": "application-autoscaling", "sfn": "states"}
_READING = ("describe", "get", "list")


@dataclass(frozen=True)
class Machine:
    """A definition in the Amazon States Language as a graph."""

    definition: Mapping[str, Any]

    @property
    def states(self) -> Mapping[str, Any]:
        """All states by name."""
        found: Mapping[str, Any] = self.definition["States"]
        return found

    @cached_property
    def tasks(self) -> list[str]:
        """The names of the Task states, in the order of the definition."""
        return [name for name, state in self.states.items() if state["Type"] == "Task"]

    def operation(self, task: str) -> str:
        """The API operation that a Task calls, as `kelpie local fault api-error` wants it."""
        service, _, action = self.states[task]["Resource"].removesuffix(".sync").rpartition(":")
        service = service.rpartition(":")[2]
        return f"{_SERVICES.get(service, service)}:{action[0].upper()}{action[1:]}"

    def following(self, name: str) -> list[str]:
        """The states to which this one may lead, those of its Catch included."""
        state = self.states[name]
        targets = [state.get("Next"), state.get("Default")]
        targets += [rule["Next"] for rule in [*state.get("Choices", ()), *state.get("Catch", ())]]
        return [target for target in targets if target]

    def reachable(self, start: str, closed: Iterable[str] = ()) -> set[str]:
        """The states to which a way leads from `start` (itself included) that enters no closed one."""
        closed, found, todo = set(closed), {start}, [start]
        while todo:
            new = [name for name in self.following(todo.pop()) if name not in found and name not in closed]
            found.update(new)
            todo += new
        return found

    def caught_by(self, task: str) -> str:
        """The state to which an error leads that this Task does not expect."""
        (target,) = [rule["Next"] for rule in self.states[task]["Catch"] if "States.ALL" in rule["ErrorEquals"]]
        return str(target)

    def warned(self, task: str) -> str:
        """Under which key of the output's `warnings` the failure of this Task is noted."""
        (path,) = [rule["ResultPath"] for rule in self.states[task]["Catch"] if "States.ALL" in rule["ErrorEquals"]]
        return str(path).removeprefix("$.warnings.")

    def named(self, task: str) -> set[str]:
        """The states that the cause may name when the execution fails because this Task has failed.

        It is the one under whose name in `$.failed` the error is noted: by the Catch, or on the way from there.
        """
        if self.is_way_back(task):
            return {FIRST_FAILURE}
        (rule,) = [rule for rule in self.states[task]["Catch"] if "States.ALL" in rule["ErrorEquals"]]
        if rule["ResultPath"].startswith("$.failed."):
            return {rule["ResultPath"].removeprefix("$.failed.")}
        tasks = set(self.tasks)
        passed = self.reachable(rule["Next"], tasks)
        paths = [self.states[name].get("ResultPath") or "" for name in passed]
        return {path.removeprefix("$.failed.") for path in paths if path.startswith("$.failed.")}

    def retries_when_busy(self, task: str) -> bool:
        """Whether this Task's Retry has the generic error under which SageMaker's throttling arrives."""
        names = [name for rule in self.states[task].get("Retry", ()) for name in rule["ErrorEquals"]]
        return not self.operation(task).startswith("sagemaker:") or "SageMaker.SageMakerException" in names

    def next_tasks(self, start: str) -> set[str]:
        """The Tasks that come next, from this state on, other than those that only look."""
        found, seen, todo = set(), set(), [start]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            is_task = self.states[name]["Type"] == "Task"
            if is_task and not self.states[name]["Resource"].rpartition(":")[2].startswith(_READING):
                found.add(name)
            else:
                todo += [self.caught_by(name), self.states[name]["Next"]] if is_task else self.following(name)
        return found

    def ends(self, *types: str) -> set[str]:
        """The states of these types."""
        return {name for name, state in self.states.items() if state["Type"] in types}

    # What follows from the graph

    def way(self, task: str, mode: Mode) -> str | None:
        """Where the special way begins that leads to a Task; "" if an ordinary execution passes it; None if none does.

        Raises:
            LookupError: no way that the drills know leads to it.
        """
        others = {door for other, door in DOORS.items() if other != mode}
        ways = {name for name in SPECIAL_WAYS if name in self.states}
        start = self.definition["StartAt"]
        if task in self.reachable(start, ways | others):
            return ""
        for begin in SPECIAL_WAYS:
            if begin in ways and task in self.reachable(begin, (ways - {begin}) | others):
                return begin if self._is_open(begin, others) else None
        if task in self.reachable(start, ways):
            return None
        raise LookupError(
            f"No way that the drills know leads to Task {task!r}: add where it begins to SPECIAL_WAYS in "
            f"{__file__}, and a set-up to test_faults.py"
        )

    def _is_open(self, begin: str, others: set[str]) -> bool:
        return begin in self.reachable(self.definition["StartAt"], others)

    def goes_on(self, task: str) -> bool:
        """Whether the execution goes on, with a warning at most, when this Task fails.

        It does not when the way back may be the next thing, or when no end is left that is a success.
        """
        target = self.caught_by(task)
        if "CleanUp" in self.next_tasks(target):
            return False
        return bool(self.ends("Succeed") & self.reachable(target))

    def is_way_back(self, task: str) -> bool:
        """Whether the execution has failed already when it comes to this Task."""
        return not self.ends("Succeed") & self.reachable(task)

    def uses_earlier_training(self, task: str) -> bool:
        """Whether an execution comes to this Task without training anew, when it resumes from a completed job."""
        begin = "DescribeEarlierTraining"
        if begin not in self.states:
            return False
        training = {name for name in self.tasks if self.states[name]["Resource"].endswith("createTrainingJob.sync")}
        return task != begin and task in self.reachable(begin, {*training, "CleanUp"})
