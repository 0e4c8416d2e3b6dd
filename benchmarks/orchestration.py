"""Orchestration: what a Task state costs locally, how soon `.sync` notices, how long commands take, what is counted."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import pictures
from benchmarks.account import LocalAccount, local_account
from benchmarks.children import ROOT, ChildFailed, own_python, run
from benchmarks.reaper import ended_with_me
from benchmarks.record import Row, Table
from workflow.cost.pricing import load_prices

NAME = "orchestration"
SDKS = ("boto3", "botocore", "sagemaker", "stepfunctions", "moto", "torch", "jinja2", "pygraphviz")
_TABLE = "benchmark"
_COMMAND_SECONDS = 120
_FIRST = "kelpie local up, the first time in a home"
_AGAIN = "kelpie local up, again there after kelpie local down"


def machine(kind: str, count: int) -> dict[str, Any]:
    """A chain of states of one kind that all do the same cheap thing."""
    get_item = {"TableName": _TABLE, "Key": {"pk": {"S": "nothing"}}}
    common = {"Resource": f"arn:aws:states:::{kind}", "ResultPath": None, "Parameters": get_item}
    of = {"Type": "Pass"} if kind == "pass" else {"Type": "Task", **common}
    last = count - 1
    states = {f"S{n}": {**of, **({"End": True} if n == last else {"Next": f"S{n + 1}"})} for n in range(count)}
    return {"StartAt": "S0", "States": states}


def execution_ms(local: LocalAccount, arn: str) -> float:
    """Milliseconds from start to stop of one execution, by the service's own clock."""
    client = local.account.client("stepfunctions")
    execution = local.wait(client.start_execution(stateMachineArn=arn)["executionArn"])
    assert execution.stopped is not None
    return (execution.stopped - execution.started).total_seconds() * 1000


def task_states(local: LocalAccount, count: int, rounds: int) -> Table:
    """Milliseconds that one more state costs: a long chain less a short one, kind by kind in turn."""
    states, iam = local.account.client("stepfunctions"), local.account.client("iam")
    dynamodb = local.account.client("dynamodb")
    dynamodb.create_table(
        TableName=_TABLE,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
        ],
    }
    table_arn = dynamodb.describe_table(TableName=_TABLE)["Table"]["TableArn"]
    may = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": table_arn}],
    }
    role = iam.create_role(RoleName="benchmark", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="benchmark", PolicyName="benchmark", PolicyDocument=json.dumps(may))
    kinds = {
        "dynamodb:getItem": "Task, dynamodb:getItem",
        "aws-sdk:dynamodb:getItem": "Task, aws-sdk:dynamodb:getItem",
        "pass": "Pass",
    }
    arns = {
        (kind, length): states.create_state_machine(
            name=f"{kind.replace(':', '-')}-{length}", definition=json.dumps(machine(kind, length)), roleArn=role
        )["stateMachineArn"]
        for kind in kinds
        for length in (1, count + 1)
    }
    for arn in arns.values():
        execution_ms(local, arn)  # warm-up
    each: dict[str, list[float]] = {name: [] for name in kinds.values()}
    alone = []
    for _ in range(rounds):
        for kind, name in kinds.items():
            more = execution_ms(local, arns[kind, count + 1]) - execution_ms(local, arns[kind, 1])
            each[name].append(max(more, 0.0) / count)
        alone.append(call_ms(lambda: dynamodb.get_item(TableName=_TABLE, Key={"pk": {"S": "nothing"}}), count))
    limit = statistics.median(alone)
    rows = [Row(name, values, limit=None if name == "Pass" else limit) for name, values in each.items()]
    rows.append(Row("the call alone, by boto3 over HTTP, signed and authorised", alone))
    note = f"Chains of {count + 1} states less chains of one, divided by {count}; server mode, IAM on."
    return Table(
        "What one more state costs in the local cloud",
        "ms a state",
        "lower",
        rows,
        limit_name="the same call alone",
        note=note,
        headlines=("Task, aws-sdk:dynamodb:getItem",),
    )


def call_ms(call: Callable[[], object], count: int) -> float:
    """The median of a call's milliseconds."""
    spans = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        spans.append((time.perf_counter() - started) * 1000)
    return statistics.median(spans)


def whole_executions(local: LocalAccount, folder: Path, image_counts: tuple[int, ...]) -> list[Table]:
    """Whole executions: how soon `.sync` notices the end of its job, events, transitions, price."""
    lags: list[float] = []
    counts: list[Row] = []
    price = load_prices().usd_per_state_transition
    for images in image_counts:
        execution = local.execute(pictures.dogs(folder / f"dogs-{images}", images))
        job = local.account.client("sagemaker").describe_training_job(TrainingJobName=execution.training_job)
        ended = next(
            event["timestamp"]
            for event in execution.events
            if event["type"] == "TaskSucceeded"
            and "createTrainingJob" in event["taskSucceededEventDetails"].get("resource", "")
        )
        lags.append((ended - job["TrainingEndTime"]).total_seconds() * 1000)
        payload = max(len(json.dumps(event, default=str)) for event in execution.events)
        transitions = len(execution.visits)
        more: dict[str, float | str] = {
            "transitions": transitions,
            "USD for them": f"{transitions * price:.6f}",
            "largest event, bytes": payload,
            "seconds": execution.seconds,
        }
        name = f"{images} pictures" if not counts else f"{images} pictures, the endpoint exists already"
        counts.append(Row(name, (len(execution.events),), more=more))
    return [
        Table(
            "From the end of a training job to the end of its `.sync` Task",
            "ms",
            "lower",
            (Row("createTrainingJob.sync", [max(lag, 0.0) for lag in lags]),),
            note="TrainingEndTime of DescribeTrainingJob to the TaskSucceeded event.",
            headlines=("createTrainingJob.sync",),
        ),
        Table(
            "What is counted of an execution",
            "events",
            "lower",
            counts,
            note=f"Local waits are divided by {30}; USD by the price table, {price} a transition.",
        ),
    ]


def kelpie(arguments: list[str], folder: Path, home: Path) -> float:
    """Seconds of one `kelpie` command."""
    env = os.environ | {"KELPIE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    argv = [own_python(), "-m", "workflow", *arguments]
    return run(
        argv, name=f"kelpie {' '.join(arguments)}", cwd=folder, env=env, timeout_seconds=_COMMAND_SECONDS
    ).seconds


def commands(folder: Path, rounds: int) -> list[Table]:
    """`kelpie --help` and `kelpie local up`, each in a fresh process."""
    folder.mkdir(parents=True)
    helps, nothing, downs = [], [], []
    first: list[float] = []
    again: list[float] = []
    for _ in range(rounds + 1):
        nothing.append(run([own_python(), "-c", "pass"], name="python", cwd=folder, env={}, timeout_seconds=60).seconds)
        helps.append(kelpie(["--help"], folder, folder / "home"))
    for number in range(rounds):
        home = folder / f"home-{number}"
        with ended_with_me(home / "local"):
            for ups in (first, again):
                ups.append(kelpie(["local", "up"], folder, home))
                downs.append(kelpie(["local", "down"], folder, home))
    modules, heavy = imported_by_help(folder)
    said: dict[str, float | str] = {"modules imported": modules, "SDKs imported": ", ".join(heavy) or "none"}
    return [
        Table(
            "Commands of the prompt, in a fresh process",
            "s",
            "lower",
            (
                Row("kelpie --help", helps[1:], limit=statistics.median(nothing[1:]), more=said),
                Row(_FIRST, first),
                Row(_AGAIN, again),
                Row("kelpie local down", downs),
            ),
            limit_name="Python starting and ending",
            headlines=("kelpie --help", _FIRST, _AGAIN),
            note="What `up` and `down` take includes the whole stack; an ended local cloud keeps nothing of it.",
        )
    ]


def imported_by_help(folder: Path) -> tuple[int, list[str]]:
    """How many modules `kelpie --help` imports, and which of `SDKS` are among them."""
    program = (
        "import sys, json\nfrom workflow.__main__ import main\nsys.argv = ['kelpie', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('modules', json.dumps(sorted(sys.modules)))\n"
    )
    env = {"PYTHONPATH": str(ROOT)}
    done = run(
        [own_python(), "-c", program], name="kelpie --help", cwd=folder, env=env, timeout_seconds=_COMMAND_SECONDS
    )
    names = set(json.loads("".join(line.text for line in done.child.lines).partition("modules ")[2]))
    if "workflow.cli" not in names:
        raise ChildFailed("kelpie --help did not import workflow.cli")
    return len(names), [name for name in SDKS if name in names]


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `orchestration`."""
    tables = commands(folder / "commands", 1 if quick else 5)
    with local_account(folder / "cloud") as local:
        tables.append(task_states(local, 5 if quick else 100, 1 if quick else 5))
        tables += whole_executions(local, folder / "executions", (60,) if quick else (60, 100, 300))
    return tables
