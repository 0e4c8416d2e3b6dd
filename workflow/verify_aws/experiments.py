"""The experiments: each answers one question about AWS that no document answers.

None of them was run against AWS when it was written; the record of a run says where it ran.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workflow.errors import KelpieError
from workflow.verify_aws.lab import Lab
from workflow.verify_aws.left_overs import RUNS

if TYPE_CHECKING:
    from workflow.config import Config

SCHEDULE_PATIENCE_SECONDS = 240
EVENT_PATIENCE_SECONDS = 60
PERSON_PATIENCE_SECONDS = 900

_STATES = "arn:aws:states:::"
_MISSING = "kelpie-verify-no-such-endpoint"
_EVENT_SOURCE = "kelpie.verify"

UNPROVEN: tuple[tuple[str, str, Any], ...] = (
    ("sagemaker:createTrainingJob.sync", "RetryStrategy", {"MaximumRetryAttempts": 1}),
    ("sagemaker:createTrainingJob.sync", "EnableInterContainerTrafficEncryption", True),
    ("sagemaker:createModel", "InferenceExecutionConfig", {"Mode": "Direct"}),
    ("sagemaker:createEndpointConfig", "AsyncInferenceConfig", {"OutputConfig": {"S3OutputPath": "s3://b/p"}}),
    ("sagemaker:createEndpoint", "DeploymentConfig", {}),
    ("sagemaker:updateEndpoint", "DeploymentConfig", {}),
    ("sagemaker:updateEndpoint", "RetainAllVariantProperties", True),
)
"""Integration, field and a value, for the fields that nobody has seen an optimised integration accept."""

_REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "sagemaker:createTrainingJob.sync": {
        "TrainingJobName": "kelpie-verify",
        "RoleArn": "arn:aws:iam::123456789012:role/kelpie-verify",
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
        "OutputDataConfig": {"S3OutputPath": "s3://bucket/path"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    },
    "sagemaker:createModel": {"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/kelpie-verify"},
    "sagemaker:createEndpointConfig": {
        "EndpointConfigName": "c",
        "ProductionVariants": [{"VariantName": "v", "ModelName": "m"}],
    },
    "sagemaker:createEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
    "sagemaker:updateEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
}


@dataclass(frozen=True)
class Observation:
    """What an experiment saw.

    Args:
        answer: The answer to its question, in one sentence.
        evidence: What AWS said, ready for JSON.
    """

    answer: str
    evidence: Any


@dataclass(frozen=True)
class Experiment:
    """One question, and how it is tried.

    Args:
        name: What it is called on the command line.
        question: What nobody could verify.
        how: What is made and done.
        cost: What it costs.
        run: Does it; None for what no program can arrange: `how` then says what a person does.
        needs_person: A person has to do something in the AWS console meanwhile.
        spends: It may start an instance that is paid for, so it is not tried unless asked for.
    """

    name: str
    question: str
    how: str
    cost: str
    run: Callable[[Lab, Config], Observation] | None
    needs_person: bool = False
    spends: bool = False


def _own_definition(lab: Lab, config: Config) -> Observation:
    from workflow import definition
    from workflow.preflight import service

    account = lab.account
    text = service.rendered(definition.build(config), config.project.name, account)
    found = service.diagnostics(account, text)
    errors = [one for one in found if one["severity"] == "ERROR"]
    verdict = "It is accepted" if not errors else f"It is refused, with {len(errors)} errors"
    return Observation(f"{verdict}; {len(found) - len(errors)} warnings.", found)


def _unproven_fields(lab: Lab, _config: Config) -> Observation:
    from workflow.preflight import service

    def errors(integration: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        task = {"Type": "Task", "Resource": _STATES + integration, "Parameters": parameters, "End": True}
        text = json.dumps({"StartAt": "Try", "States": {"Try": task}})
        return [one for one in service.diagnostics(lab.account, text) if one["severity"] == "ERROR"]

    seen: dict[str, Any] = {}
    for integration, field, value in UNPROVEN:
        required = dict(_REQUIRED[integration])
        if errors(integration, required):
            answer = "unknown: refused even without the field"
        elif not errors(integration, {**required, "NoSuchField": 1}):
            answer = "unknown: a made-up field is accepted too, so fields are not checked here"
        else:
            answer = "refused" if errors(integration, {**required, field: value}) else "accepted"
        seen[f"{integration} {field}"] = answer
    return Observation("; ".join(f"{field}: {answer}" for field, answer in seen.items()), seen)


def _retried_parameters(lab: Lab, _config: Config) -> Observation:
    """A call that fails, with the number of the attempt in its parameters."""
    task = _describe_missing("States.Format('kelpie-verify-attempt-{}', $$.State.RetryCount)")
    task["Retry"] = [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 1, "MaxAttempts": 2, "BackoffRate": 1}]
    machine = lab.machine({"Try": task}, [_may_describe(lab)])
    _, history = lab.execute(machine)
    tried = [
        json.loads(event["taskScheduledEventDetails"]["parameters"])["EndpointName"]
        for event in history
        if "taskScheduledEventDetails" in event
    ]
    if len(tried) < 2:
        answer = "Unknown: the call was not repeated."
    else:
        again = len(set(tried)) == len(tried)
        answer = f"Parameters are {'evaluated again' if again else 'not evaluated again'} on Retry: {', '.join(tried)}."
    return Observation(answer, tried)


def _redrive_count(lab: Lab, _config: Config) -> Observation:
    machine = lab.machine(
        {"Look": {"Type": "Pass", "Parameters": {"count.$": "$$.Execution.RedriveCount"}, "End": True}}, []
    )
    described, _ = lab.execute(machine)
    seen = {key: described[key] for key in ("status", "output", "error", "cause") if key in described}
    if described["status"] == "SUCCEEDED":
        return Observation(f"It is {json.loads(described['output'])['count']!r} before any redrive.", seen)
    return Observation(f"It is not there before a redrive: {described.get('error')}.", seen)


def _generic_errors(lab: Lab, _config: Config) -> Observation:
    """Two calls that must fail: an endpoint that does not exist, and a config of a model that does not exist."""
    create = {
        "Type": "Task",
        "Resource": f"{_STATES}sagemaker:createEndpointConfig",
        "Parameters": {
            "EndpointConfigName": lab.name("config"),
            "ProductionVariants": [
                {
                    "VariantName": "v",
                    "ModelName": "kelpie-verify-no-such-model",
                    "InitialInstanceCount": 1,
                    "InstanceType": "ml.m5.large",
                }
            ],
        },
        "End": True,
    }
    seen: dict[str, Any] = {}
    account = lab.account
    configs = f"arn:aws:sagemaker:{account.region}:{account.account_id}:endpoint-config/kelpie-verify-*"
    allowed = {
        "Effect": "Allow",
        "Action": ["sagemaker:CreateEndpointConfig", "sagemaker:AddTags"],
        "Resource": configs,
    }
    for kind, task, statement in (
        ("aws-sdk", _describe_missing(f"States.Format('{_MISSING}')"), _may_describe(lab)),
        ("optimised", create, allowed),
    ):
        described, _ = lab.execute(lab.machine({"Try": task}, [statement]))
        seen[kind] = {key: described.get(key) for key in ("status", "error", "cause")}
    answer = "; ".join(f"{kind}: {one['error']}" for kind, one in seen.items())
    return Observation(f"The error of what does not exist is called {answer}.", seen)


def _name_by_rule(lab: Lab, _config: Config) -> Observation:
    machine = _echo(lab)
    events, rule = lab.account.client("events"), lab.name("rule")
    role = lab.role("events.amazonaws.com", [_may_start(machine)])
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": [_EVENT_SOURCE], "detail": {"rule": [rule]}}))
    target = {"Id": "machine", "Arn": machine, "RoleArn": role, "Input": "{}"}
    lab.patiently(lambda: events.put_targets(Rule=rule, Targets=[target]), "AccessDenied")

    def send_and_look() -> dict[str, Any] | None:
        events.put_events(
            Entries=[{"Source": _EVENT_SOURCE, "DetailType": "Verify", "Detail": json.dumps({"rule": rule})}]
        )
        found = lab.account.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
        return found[0] if found else None

    return _named(lab.wait(send_and_look, EVENT_PATIENCE_SECONDS, "an execution that the rule starts"))


def _name_by_schedule(lab: Lab, _config: Config) -> Observation:
    machine = _echo(lab)
    role = lab.role("scheduler.amazonaws.com", [_may_start(machine)])
    soon = datetime.datetime.now(tz=datetime.UTC) + datetime.timedelta(seconds=70)
    scheduler = lab.account.client("scheduler")
    lab.patiently(
        lambda: scheduler.create_schedule(
            Name=lab.name("schedule"),
            ScheduleExpression=f"at({soon:%Y-%m-%dT%H:%M:%S})",
            ScheduleExpressionTimezone="UTC",
            FlexibleTimeWindow={"Mode": "OFF"},
            ActionAfterCompletion="DELETE",
            Target={"Arn": machine, "RoleArn": role, "Input": "{}"},
        ),
        "ValidationException",  # what a role gets that cannot be assumed yet
    )
    return _named(lab.first_execution(machine, SCHEDULE_PATIENCE_SECONDS))


def _console_input(lab: Lab, _config: Config) -> Observation:
    machine = _echo(lab)
    region = lab.account.region
    print(
        "Open this page, press Start execution, change nothing, and press Start execution again:\n"
        f"https://{region}.console.aws.amazon.com/states/home?region={region}#/statemachines/view/{machine}"
    )
    started = lab.first_execution(machine, PERSON_PATIENCE_SECONDS)
    described, _ = lab.ended(started["executionArn"])
    return Observation(
        f"The console's input is {described['input']}, and the execution is called {described['name']}.",
        {"input": described["input"], "name": described["name"]},
    )


def _stopped_training(lab: Lab, config: Config) -> Observation:
    """A training job that is stopped as soon as there is one: does its Task fail or succeed?"""
    from workflow.deployment import stack

    account, job = lab.account, lab.name("job")
    outputs = stack.outputs(account, config)
    sfn = account.client("stepfunctions")
    deployed = sfn.describe_state_machine(stateMachineArn=outputs.state_machine_arn)
    ours = json.loads(deployed["definition"])["States"]["TrainOnDemand"]["Parameters"]
    jobs = f"arn:aws:sagemaker:{account.region}:{account.account_id}:training-job/kelpie-verify-*"
    rule = (
        f"arn:aws:events:{account.region}:{account.account_id}:rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule"
    )
    actions = ["CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "AddTags"]
    statements = [
        {"Effect": "Allow", "Action": [f"sagemaker:{one}" for one in actions], "Resource": jobs},
        {"Effect": "Allow", "Action": "iam:PassRole", "Resource": ours["RoleArn"]},
        {
            "Effect": "Allow",
            "Action": [f"events:{one}" for one in ("PutRule", "PutTargets", "DescribeRule")],
            "Resource": rule,
        },
    ]
    train = {
        "Type": "Task",
        "Resource": f"{_STATES}sagemaker:createTrainingJob.sync",
        "Parameters": {
            "TrainingJobName": job,
            "RoleArn": ours["RoleArn"],
            "AlgorithmSpecification": {
                "TrainingImage": ours["AlgorithmSpecification"]["TrainingImage"],
                "TrainingInputMode": "File",
            },
            "OutputDataConfig": {"S3OutputPath": f"s3://{outputs.artifact_bucket}/{RUNS}{job}"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        },
        "End": True,
    }
    machine = lab.machine({"Train": train}, statements)
    execution = sfn.start_execution(stateMachineArn=machine, input="{}")["executionArn"]
    sagemaker = account.client("sagemaker")

    def stop() -> dict[str, Any] | None:
        try:
            sagemaker.stop_training_job(TrainingJobName=job)
        except sagemaker.exceptions.ClientError:  # not created yet, or never
            running = sfn.describe_execution(executionArn=execution)["status"] == "RUNNING"
            return None if running else {}
        return {}

    lab.wait(stop, EVENT_PATIENCE_SECONDS, "the training job")
    described, _ = lab.ended(execution)
    try:
        ended = sagemaker.describe_training_job(TrainingJobName=job)
    except sagemaker.exceptions.ClientError as error:
        raise KelpieError(f"the training job was not created: {described.get('error')}", str(described)) from error
    seen = {key: described.get(key) for key in ("status", "error", "cause", "output")}
    seen["training_job_status"] = ended["TrainingJobStatus"]
    if ended["TrainingJobStatus"] != "Stopped":
        return Observation(f"Unknown: the job ended {ended['TrainingJobStatus']} before it could be stopped.", seen)
    verb = "succeeds" if described["status"] == "SUCCEEDED" else f"fails with {described.get('error')}"
    return Observation(f"The Task {verb} when its job ends {ended['TrainingJobStatus']}.", seen)


def _echo(lab: Lab) -> str:
    return lab.machine({"Echo": {"Type": "Pass", "End": True}}, [])


def _named(execution: dict[str, Any]) -> Observation:
    name = execution["name"]
    return Observation(f"The execution is called {name} ({len(name)} characters).", {"name": name})


def _may_start(machine: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "states:StartExecution", "Resource": machine}


def _may_describe(lab: Lab) -> dict[str, Any]:
    account = lab.account
    endpoints = f"arn:aws:sagemaker:{account.region}:{account.account_id}:endpoint/kelpie-verify-*"
    return {"Effect": "Allow", "Action": "sagemaker:DescribeEndpoint", "Resource": endpoints}


def _describe_missing(name: str) -> dict[str, Any]:
    return {
        "Type": "Task",
        "Resource": f"{_STATES}aws-sdk:sagemaker:describeEndpoint",
        "Parameters": {"EndpointName.$": name},
        "End": True,
    }


_TRANSITIONS = "a few state transitions"

EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "own-definition",
        "Does Step Functions accept our state machine?",
        "ValidateStateMachineDefinition with made-up ARNs; it creates nothing.",
        "nothing",
        _own_definition,
    ),
    Experiment(
        "unproven-fields",
        "Which fields do the optimised SageMaker integrations accept?",
        "ValidateStateMachineDefinition of one Task for each field, and with a made-up field for comparison. What is "
        "accepted here may still be refused when it runs.",
        "nothing",
        _unproven_fields,
    ),
    Experiment(
        "retried-parameters",
        "Are Parameters evaluated again on each Retry?",
        "A state machine whose only Task looks for an endpoint that does not exist, called after $$.State.RetryCount; "
        "the history shows what was asked for.",
        _TRANSITIONS,
        _retried_parameters,
    ),
    Experiment(
        "redrive-count",
        "Is $$.Execution.RedriveCount there before any redrive?",
        "A state machine with one Pass that writes it down.",
        _TRANSITIONS,
        _redrive_count,
    ),
    Experiment(
        "generic-errors",
        "What are the generic errors of SageMaker called, in both kinds of integrations?",
        "Two state machines whose calls must fail: an endpoint and a model that do not exist.",
        _TRANSITIONS,
        _generic_errors,
    ),
    Experiment(
        "name-by-rule",
        "What does an EventBridge rule call the executions that it starts?",
        "A rule on an event of our own, which is sent; it starts a state machine with one Pass.",
        f"{_TRANSITIONS} and events",
        _name_by_rule,
    ),
    Experiment(
        "name-by-schedule",
        "What does EventBridge Scheduler call the executions that it starts?",
        "A schedule that fires once, in about a minute, and starts a state machine with one Pass.",
        _TRANSITIONS,
        _name_by_schedule,
    ),
    Experiment(
        "console-input",
        "What does the console put into a new execution's input?",
        "A state machine with one Pass; a person starts it in the console without changing anything.",
        _TRANSITIONS,
        _console_input,
        needs_person=True,
    ),
    Experiment(
        "stopped-training",
        "Does a Task with createTrainingJob.sync fail or succeed when its training job ends Stopped?",
        "A state machine starts a training job on one ml.m5.large, with the role and the image of the deployed stack "
        "and with neither code nor data; StopTrainingJob is called as soon as the job exists. How the Task ends is the "
        "answer, unless the job ends otherwise than Stopped.",
        "nothing if the job is stopped before its instance has started, else at most its limit of 300 s of ml.m5.large",
        _stopped_training,
        spends=True,
    ),
    Experiment(
        "signal-on-reclaim",
        "Does a container get SIGTERM when spot capacity is taken away?",
        "Nobody can take spot capacity away on purpose. After an execution whose training job was Interrupted, look "
        "for 'SIGTERM' in kelpie logs EXECUTION --state Train.",
        "the training job",
        None,
        needs_person=True,
        spends=True,
    ),
    Experiment(
        "status-after-rollback",
        "Is an endpoint InService on its old config after an automatic rollback?",
        "During an update, set the alarm <project>-endpoint-errors to ALARM (aws cloudwatch set-alarm-state), and look "
        "at kelpie describe EXECUTION: it must end with UpdateRolledBack, and the old version serve.",
        "an execution, and two fleets for about ten minutes",
        None,
        needs_person=True,
        spends=True,
    ),
)
"""In the order in which they are tried, the cheapest first."""
