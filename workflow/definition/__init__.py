"""The state machine.

`CHAPTERS` is its story, one function a chapter, in the order in which an execution meets them; each has its states in
that order too. They are in preparation, training, hosting and completion; way_back is where every failure leads.
`build` puts them together.

What the state data holds, and the state that puts it there:
    settings    ResolveInput        the input merged into the defaults; every later state reads its settings here
    names       NameResources       what this execution calls the things that it creates
    limits      LimitTraining       seconds that training may take
    attempt     ResolveInput        the number of the training job; NextAttempt counts it up
    version     DescribeVersion     the registered version that a rollback brings back
    data        CheckData           what lies in the folder of pictures
    champion    ReadServing         what serves before this execution
    fingerprint FingerprintTraining what training depends on, and what its model is compared with
    earlier     DescribeEarlierTraining  the training job to go on from
    train       Train               what DescribeTrainingJob answers
    artifacts   NameArtifacts       where the model and its evidence lie, and the image and program that serve it
    gate        QualityGate         its verdict
    package     RegisterVersion     the registered version
    endpoint    DescribeEndpoint    the endpoint before this execution touches it, and whether it `exists`
    serving     TakeFirstVariant    its production variant, and the same of its config
    scaling     DescribeScalableTarget, DescribeScalingPolicies: how it scales, for CleanUp to put back
    deployment  DescribeDeployment  the endpoint while and after it changes
    smoke       SmokeTest           what the endpoint answered
    failed      any Task            Error and Cause, by the name of the state that failed
    warnings    after promotion     the same, for failures that no longer matter to the result; NoteFallBack too
    clean_up    CleanUp             what went wrong in one sentence, and what was undone

`${Name}` stands for a value that belongs to an account; the stack puts it in (see `SUBSTITUTIONS`).
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from workflow.config import Config
from workflow.definition.completion import finish, promote, prove
from workflow.definition.hosting import deploy, host, register, scale, wait_for_endpoint
from workflow.definition.preparation import bring_back, lock, settle
from workflow.definition.training import check, judge, resume, train
from workflow.definition.way_back import go_back
from workflow.sdk import Catch, Graph, State, guarded

FUNCTIONS = ("ResolveInput", "CheckData", "QualityGate", "SmokeTest", "PruneVersions", "CleanUp")

SUBSTITUTIONS = frozenset(
    {
        "AccountId",
        "ArtifactBucket",
        "CodeChannelUri",
        "DataBucket",
        "EndpointErrorsAlarm",
        "EndpointLatencyAlarm",
        "HostingRoleArn",
        "KmsKeyArn",
        "LockTable",
        "ModelPackageGroup",
        "NotificationTopicArn",
        "Partition",
        "PrivateSubnetA",
        "PrivateSubnetB",
        "Region",
        "ServingImage",
        "TrainingImage",
        "TrainingRoleArn",
        "TrainingSecurityGroup",
        "WeightsChannelUri",
        "WheelsChannelUri",
        *(f"{name}FunctionArn" for name in FUNCTIONS),
    }
)
"""What the stack puts into the definition."""

TIMEOUT_SECONDS = 90 * 86_400
"""Longer than every path through the machine can take; a test adds them up. An execution that is timed out skips
every Catch, so this is only the very last resort."""


CHAPTERS = (
    settle,  # what is to be done
    lock,  # one execution at a time
    bring_back,  # a new model, or an earlier one?
    check,  # is there anything to learn from?
    resume,  # has an earlier execution learned it already?
    train,  # learn
    judge,  # is it good enough?
    register,  # write it down
    host,  # what the endpoint is made of
    deploy,  # put it where requests arrive
    wait_for_endpoint,  # until it is there
    scale,  # more instances when more requests come
    prove,  # does it answer?
    promote,  # from now on this is the model
    finish,  # tidy up and say so
)


def build(config: Config) -> dict[str, Any]:
    """The state machine in the Amazon States Language, with `${Name}` for what belongs to an account.

    Needs neither network nor credentials, and is the same for the same config.
    """
    with guarded():
        chapters = [chapter(config) for chapter in CHAPTERS]
        first = dict(zip(CHAPTERS, (chapter.first for chapter in chapters), strict=True))
        for chapter, following in pairwise(chapters):
            for door in chapter.doors:
                door(following.first)
            for destination, door in chapter.side_doors:
                door(first[destination])
        story = _States()
        chapters[0].first.accept(story)
        clean_up = go_back(config).first
        for state in story.found.values():
            _lead_back(state, clean_up)
        graph = Graph(
            chapters[0].first,
            comment=f"{config.project.name}: from labelled pictures to a guarded, autoscaled endpoint",
            timeout_seconds=TIMEOUT_SECONDS,
        )
        definition: dict[str, Any] = graph.to_dict()
    return definition


def render(config: Config) -> str:
    """The state machine as JSON text, always the same bytes for the same config."""
    return json.dumps(build(config), indent=2, ensure_ascii=False) + "\n"


class _States:
    """Collects the states that can be reached; the SDK's states know how to be visited."""

    def __init__(self) -> None:
        self.found: dict[str, State] = {}

    def is_visited(self, state: State) -> bool:
        return state.state_id in self.found

    def visit(self, state: State) -> None:
        self.found[state.state_id] = state


def _lead_back(state: State, clean_up: State) -> None:
    """Every Task that has no other way out for all errors, and every named failure, goes on to CleanUp."""
    if state.state_type == "Task" and not any("States.ALL" in catch.error_equals for catch in state.catches):
        failed = f"$.failed.{state.state_id}"
        state.add_catch(Catch(clean_up, error_equals=["States.ALL"], result_path=failed))
    if state.state_type == "Pass" and state.next_step is None:
        state.next(clean_up)
