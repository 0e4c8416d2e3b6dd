"""The report of an execution: one HTML page that needs nothing else, assembled from AWS API reads only.

What the execution never reached is said where it would stand. Texts and pictures come from users and from training's
container, so everything is escaped by the template, and only small JPEGs are shown.
"""

from __future__ import annotations

import base64
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from botocore.exceptions import ClientError

from workflow import executions
from workflow.account import Account
from workflow.graph import Graph
from workflow.pages.charts import Series, confusion_matrix, histogram, line_chart, ticks
from workflow.pages.drawing import duration, environment, failed_state, to_svg
from workflow.summary import summarize

MAX_PICTURES = 24
MAX_PICTURE_BYTES = 24 * 1024
MAX_EVIDENCE_BYTES = 256 * 1024**2
"""Most that is unpacked of the evidence archive, which comes out of a container that runs other people's code."""
MAX_JSON_BYTES = 16 * 1024**2
MAX_CLASSES_IN_MATRIX = 24
_WORTH_A_ROW = 0.004
_STEP = re.compile(r"\bstep=(\d+)")
_RESUMED = re.compile(r"\bresumed_step=([1-9]\d*)")
_JPEG = b"\xff\xd8\xff"
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)


@dataclass(frozen=True)
class Evidence:
    """What training left in its output archive: the evaluation, the model's contract, small pictures by file name."""

    evaluation: dict[str, Any] = field(default_factory=dict)
    contract: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def write(account: Account, execution_arn: str, path: Path) -> Path:
    """Write the report of an execution, finished or not, and return its path.

    Raises:
        ClientError: an AWS API that the report reads from refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(account, execution_arn), encoding="utf-8")
    return path


def render(account: Account, execution_arn: str) -> str:
    """The report as HTML text."""
    execution = executions.describe(account, execution_arn)
    summary = summarize(account, execution)
    state = execution.data if "settings" in execution.data else {}
    name = summary["training_job_name"]
    job = account.client("sagemaker").describe_training_job(TrainingJobName=name) if name else {}
    log = executions.training_log(account, name) if name else []
    evidence = read_evidence(account, _evidence_uri(state, job))
    graph = Graph.from_definition(executions.definition(account, execution_arn))
    failed = failed_state(graph, execution)
    smoke = state.get("smoke", {}).get("predictions", [])
    context = {
        "execution": execution,
        "summary": summary,
        "state": state,
        "job": job,
        "tiles": tiles(execution, summary, smoke),
        "undone": state.get("clean_up", {}).get("actions", []),
        "graph": to_svg(graph, execution),
        "gantt": gantt(execution, job, failed),
        "curves": curves(job, log),
        "evidence": evidence,
        "matrix": _matrix(evidence.evaluation),
        "worst": _worst(evidence),
        "smoke": _smoke(smoke, evidence),
        "latencies": _latencies(smoke),
        "cost_rows": cost_rows(summary, job),
        "settings": settings_rows(state.get("settings", {})),
        "provenance": provenance(execution, state, job, evidence),
        "not_reached": _not_reached(execution, failed),
    }
    return environment().get_template("report.html.j2").render(context)


# --- reading ---------------------------------------------------------------------------------------------------------


def _evidence_uri(state: Mapping[str, Any], job: Mapping[str, Any]) -> str | None:
    if uri := state.get("artifacts", {}).get("evidence_s3_uri"):
        return str(uri)
    if job.get("TrainingJobStatus") != "Completed":
        return None
    # Source: SageMaker developer guide, "Amazon SageMaker AI Training Storage Folders" (2026-11): output/output.tar.gz.
    return f"{job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job['TrainingJobName']}/output/output.tar.gz"


def read_evidence(account: Account, uri: str | None) -> Evidence:
    """Read the evidence archive as a stream, with a bound on everything; nothing is written to disk."""
    if uri is None:
        return Evidence(problem="training wrote no evidence")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        body = account.client("s3").get_object(Bucket=bucket, Key=key)["Body"]
        documents: dict[str, dict[str, Any]] = {}
        pictures: dict[str, str] = {}
        for name, content in _members(body):
            if name.endswith(".json"):
                document = json.loads(content)
                documents[name] = document if isinstance(document, dict) else {}
            elif content.startswith(_JPEG):
                pictures[name] = "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
    except ClientError as error:
        return Evidence(problem=f"{uri} cannot be read: {error}")
    except _DAMAGED as error:
        return Evidence(problem=f"{uri} is not an intact archive of evidence: {error}")
    return Evidence(documents.get("evaluation.json", {}), documents.get("model.json", {}), pictures)


def _members(body: Any) -> Iterator[tuple[str, bytes]]:
    """The files of the archive that the report shows: two JSON files and a bounded number of small pictures."""
    found = {"worst": 0, "smoke-thumbnails": 0}
    read = 0
    with tarfile.open(fileobj=body, mode="r|gz") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
            read += member.size
            if read > MAX_EVIDENCE_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_EVIDENCE_BYTES:,} bytes")
            name = member.name.removeprefix("./")
            folder = name.partition("/")[0]
            wanted = name in ("evaluation.json", "model.json") and member.size <= MAX_JSON_BYTES
            if folder in found and member.size <= MAX_PICTURE_BYTES and found[folder] < MAX_PICTURES:
                wanted = True
            if wanted and member.isreg() and (file := archive.extractfile(member)):
                if folder in found:
                    found[folder] += 1
                yield name, file.read()


# --- sections --------------------------------------------------------------------------------------------------------


def tiles(
    execution: executions.Execution, summary: Mapping[str, Any], smoke: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """The key figures, (value, what it is); what was not measured has none."""
    cost = summary["cost_usd_estimate"]
    found = [(duration(execution.seconds), "so far" if execution.running else "from start to end")]
    if summary["test_accuracy"] is not None:
        champion = summary["champion_test_accuracy"]
        beside = "" if champion is None else f", the model before {champion:.1%}"
        found.append((f"{summary['test_accuracy']:.1%}", f"accuracy on test pictures{beside}"))
    if summary["billable_seconds"] is not None:
        saved = f"of {summary['training_seconds']} s billed on each of {summary['hosts']} hosts"
        found.append((f"{summary['billable_seconds']} s", saved))
    if summary["training_job_name"]:
        found.append((str(summary["interruptions"]), f"spot interruption{'s' * (summary['interruptions'] != 1)}"))
    if smoke:
        right = sum(row["predicted"] == row["label"] for row in smoke)
        found.append((f"{right} of {len(smoke)}", "smoke test pictures right"))
        found.append((f"{median(row['latency_ms'] for row in smoke):.0f} ms", "median latency of an answer"))
    if cost["total"] is not None and summary["billable_seconds"] is not None:
        found.append(
            (f"{cost['total']:.3f} USD", f"on AWS, at prices of {cost['prices_as_of']} ({cost['prices_source']})")
        )
    return found


@dataclass(frozen=True)
class Bar:
    """A bar of the timeline: where it begins and how long it is, in percent of the whole time."""

    left: float
    width: float
    kind: str
    title: str


@dataclass(frozen=True)
class Row:
    """A row of the timeline."""

    name: str
    bars: list[Bar]
    time: str
    note: str = ""
    sub: bool = False


def gantt(execution: executions.Execution, job: Mapping[str, Any], failed: str | None = None) -> dict[str, Any]:
    """The timeline: a row for each state that took time or failed, and the phases of the training job below it.

    `failed` is the state from which the execution took the way back.
    """
    total = max(execution.seconds, 0.001)
    end = execution.stopped or max(
        (visit.exited or visit.entered for visit in execution.visits), default=execution.started
    )

    def bar(start: datetime, stop: datetime | None, kind: str, words: str) -> Bar:
        first = (start - execution.started).total_seconds()
        seconds = max(((stop or end) - start).total_seconds(), 0.0)
        left = min(max(100 * first / total, 0.0), 100.0)
        return Bar(
            round(left, 2), round(min(100 * seconds / total, 100 - left), 2), kind, f"{words} {duration(seconds)}"
        )

    rows, left_out, left_out_seconds = [], 0, 0.0
    for name in dict.fromkeys(visit.name for visit in execution.visits):
        visits = [visit for visit in execution.visits if visit.name == name]
        seconds = sum(max(((v.exited or end) - v.entered).total_seconds(), 0.0) for v in visits)
        status = visits[-1].status
        attempts = max(visit.attempts for visit in visits)
        if seconds < _WORTH_A_ROW * total and status == "SUCCEEDED" and attempts < 2:
            left_out += 1
            left_out_seconds += seconds
            continue
        notes = [f"{len(visits)}×"] if len(visits) > 1 else []
        notes += [f"{attempts} attempts"] if attempts > 1 else []
        bars = []
        for visit in visits:
            ended = "FAILED" if name == failed and visit.status == "CAUGHT" else visit.status
            words = " ".join(text for text in (name, ended.lower(), visit.error) if text)
            bars.append(bar(visit.entered, visit.exited, ended.lower(), words))
        rows.append(Row(name, bars, duration(seconds), ", ".join(notes)))
        if name in _training_states(execution, job):
            rows += _phases(job, bar)
    scale = [(round(100 * value / total, 2), duration(value) if value else "0") for value in ticks(0, total, 4)]
    return {"rows": rows, "scale": scale, "left_out": left_out, "left_out_time": duration(left_out_seconds)}


def _training_states(execution: executions.Execution, job: Mapping[str, Any]) -> set[str]:
    """The state during which the training job was created."""
    created = job.get("CreationTime")
    return {
        visit.name
        for visit in execution.visits
        if created and visit.type == "Task" and visit.entered <= created <= (visit.exited or created)
        and visit.seconds() >= (job.get("TrainingTimeInSeconds") or 0) / 2
    }  # fmt: skip


def _phases(job: Mapping[str, Any], bar: Any) -> list[Row]:
    bars: dict[str, list[Bar]] = {}
    seconds: dict[str, float] = {}
    for step in job.get("SecondaryStatusTransitions", []):
        status, stop = step["Status"], step.get("EndTime")
        length = (stop - step["StartTime"]).total_seconds() if stop else 0.0
        if status == "Completed":
            continue
        title = f"{status}: {step.get('StatusMessage', '')}"
        bars.setdefault(status, []).append(bar(step["StartTime"], stop, f"phase {status.lower()}", title))
        seconds[status] = seconds.get(status, 0.0) + length
    return [
        Row(status, found, duration(seconds[status]), f"{len(found)}×" if len(found) > 1 else "", sub=True)
        for status, found in bars.items()
        if seconds[status] >= 0.05 or status in ("Interrupted", "Failed", "Stopped")
    ]


def curves(job: Mapping[str, Any], log: Sequence[str]) -> dict[str, Any]:
    """Loss and accuracy by step: the job's own MetricDefinitions, applied to the log of its first host."""
    metrics: dict[str, dict[int, float]] = {}
    for definition in job.get("AlgorithmSpecification", {}).get("MetricDefinitions", []):
        pattern = re.compile(definition["Regex"])
        for line in log:
            step, value = _STEP.search(line), pattern.search(line)
            if step and value:
                metrics.setdefault(definition["Name"], {})[int(step[1])] = float(value[1])
    resumed = [(float(found[1]), "resumed") for line in log if (found := _RESUMED.search(line))]
    series = {name: Series(name, sorted(values.items())) for name, values in metrics.items()}
    losses = [series[name] for name in ("train:loss", "valid:loss") if name in series]
    accuracies = [series[name] for name in ("valid:accuracy",) if name in series]
    return {
        "loss": losses and line_chart("Loss by training step", losses, x_label="step", marks=resumed),
        "accuracy": accuracies
        and line_chart("Validation accuracy by training step", accuracies, x_label="step", percent=True, marks=resumed),
        "resumed": [int(step) for step, _ in resumed],
    }


def _matrix(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    if "confusion_matrix" not in evaluation:
        return None
    classes, matrix, per_class = evaluation["classes"], evaluation["confusion_matrix"], evaluation["per_class"]
    shown = sorted(range(len(classes)), key=lambda k: per_class[k]["accuracy"])[:MAX_CLASSES_IN_MATRIX]
    kept = sorted(shown)
    mistakes = sorted(
        (
            (matrix[k][j], classes[k], classes[j])
            for k in range(len(classes))
            for j in range(len(classes))
            if j != k and matrix[k][j]
        ),
        key=lambda row: (-row[0], row[1], row[2]),
    )
    return {
        "table": confusion_matrix([classes[k] for k in kept], [[matrix[k][j] for j in kept] for k in kept]),
        "left_out": len(classes) - len(kept),
        "per_class": [per_class[k] for k in shown],
        "mistakes": mistakes[:8],
        "accuracy": evaluation["accuracy"],
        "picture_count": evaluation["picture_count"],
    }


def _worst(evidence: Evidence) -> list[dict[str, Any]]:
    rows = evidence.evaluation.get("worst_pictures", [])[:MAX_PICTURES]
    return [{**row, "source": evidence.pictures.get(row["file"])} for row in rows]


def _smoke(predictions: Sequence[Mapping[str, Any]], evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {**row, "source": evidence.pictures.get(f"smoke-thumbnails/{row['picture']}.jpg")}
        for row in predictions[:MAX_PICTURES]
    ]


def _latencies(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    values = sorted(float(row["latency_ms"]) for row in predictions)
    if not values:
        return None
    return {
        "chart": histogram("Latency of the smoke test's requests", values, x_label="milliseconds"),
        "count": len(values),
        "fastest": values[0],
        "median": median(values),
        "slowest": values[-1],
    }


def cost_rows(summary: Mapping[str, Any], job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is paid for, and how much; a price that the table lacks is said."""
    cost = summary["cost_usd_estimate"]

    def usd(value: float | None, digits: int = 4) -> str:
        return "no price in the table" if value is None else f"{value:,.{digits}f} USD"

    rows = []
    if job:
        resources = job.get("ResourceConfig", {})
        what = f"Training on {resources.get('InstanceCount')} × {resources.get('InstanceType')}"
        billable = summary["billable_seconds"]
        rows.append((what + (f", {billable} s billed" if billable is not None else ""), usd(cost["training"])))
        if cost["spot_saving_percent"]:
            rows.append(("Saved by spot capacity", f"{cost['spot_saving_percent']:.1f} %"))
    rows.append(("State transitions", usd(cost["state_transitions"])))
    if cost["total"] is not None and job:
        rows.append(("This execution", usd(cost["total"])))
    if cost["endpoint_per_month"]:
        rows.append(("The endpoint, while it stands, a month", usd(cost["endpoint_per_month"], 2)))
    return rows


def settings_rows(settings: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The resolved settings: (section, its (key, value)), in order of sections."""

    def words(value: Any) -> str:
        return (value or "(empty)") if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return [
        (section, [(key, words(value)) for key, value in values.items()])
        for section, values in settings.items()
        if isinstance(values, Mapping)
    ]


def provenance(
    execution: executions.Execution, state: Mapping[str, Any], job: Mapping[str, Any], evidence: Evidence
) -> list[tuple[str, str]]:
    """What it takes to do it again: places, hashes, versions and the seed, as far as the execution came."""
    trained = evidence.contract.get("training", {})
    channels = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in job.get("InputDataConfig", [])
        if "S3DataSource" in channel.get("DataSource", {})
    }
    versions = evidence.contract.get("library_versions", {})
    rows = [
        ("Execution", execution.arn),
        ("Data", state.get("data", {}).get("s3_uri") or state.get("settings", {}).get("data", {}).get("s3_uri")),
        ("Data manifest SHA-256", state.get("data", {}).get("manifest_sha256")),
        ("Pictures that training read, SHA-256", trained.get("manifest_sha256")),
        ("Code archive", channels.get("code")),
        ("Pretrained weights", channels.get("weights")),
        ("Training job", job.get("TrainingJobName")),
        ("Training image", job.get("AlgorithmSpecification", {}).get("TrainingImage")),
        ("Seed", job.get("HyperParameters", {}).get("seed")),
        ("Model artifact", job.get("ModelArtifacts", {}).get("S3ModelArtifacts")),
        ("Model weights SHA-256", trained.get("weights_sha256")),
        ("Serving image", state.get("artifacts", {}).get("serving_image")),
        ("Registered version", state.get("package", {}).get("ModelPackageArn")),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _not_reached(execution: executions.Execution, failed: str | None) -> str:
    """Where it ended, for the places of what it never reached."""
    if execution.running:
        return "it still runs"
    last = failed or (execution.visits[-1].name if execution.visits else "its start")
    return f"it ended with {execution.status} after {last}"
