"""Serving: the original handler and three servers around it against Kelpie in float32, bfloat16 and int8.

All serve a ResNet-50 with the same random weights, so this is about speed only; accuracy and agreement are those of a
trained EfficientNet-Lite0, from Kelpie's own training with each precision. The servers take turns, round by round.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import limits, pictures
from benchmarks.children import ROOT, Child, ChildFailed, environment, free_port, own_python, run, running
from benchmarks.client import Plan, Report
from benchmarks.record import Row, Table, percentile

NAME = "serving"
BASELINE_ENVIRONMENT = ROOT / "build" / "bench" / "venv"
GFLOP_PER_PICTURE = 8.18
"""Forward pass of ResNet-50 at 224 pixels, a multiplication and an addition being two. Source: torchvision's table of
weights, 4.09 GFLOPS as multiply-adds, read 2026-11-22."""
PRECISIONS = ("float32", "bfloat16", "int8")
AS_IS = "original handler, as people run it"
FAIR = "original handler, fair form"
_READY_SECONDS = 400.0
_TRAINING_SECONDS = 900.0
_WORKERS = 2
"""Of every baseline: what the original project ran."""


class NotReady(ChildFailed):
    """A server does not start here."""


@dataclass(frozen=True)
class Condition:
    """One kind of load."""

    name: str
    kind: str
    content_type: str
    concurrency: int
    seconds: float


MAIN = "small JPEG, concurrency 8"
WHOLE = (
    Condition(MAIN, "small", "image/jpeg", 8, 5),
    Condition("small JPEG, concurrency 1", "small", "image/jpeg", 1, 2),
    Condition("small JPEG, concurrency 32", "small", "image/jpeg", 32, 3),
    Condition("12-megapixel JPEG, concurrency 8", "large", "image/jpeg", 8, 2),
    Condition("small PNG, concurrency 8", "png", "image/png", 8, 2),
)
QUICK = (
    Condition(MAIN, "small", "image/jpeg", 2, 0.3),
    Condition("12-megapixel JPEG, concurrency 8", "large", "image/jpeg", 1, 0.1),
)


@dataclass(frozen=True)
class Contestant:
    """A server: how it is started."""

    name: str
    command: Callable[[int, Path], list[str]]
    """From a port and a working folder of its own."""
    env: Callable[[int, Path], dict[str, str]]
    model: Path
    expected: dict[str, list[str] | None]
    """The right best class of each picture, by kind."""
    precision: str = ""
    """Kelpie's."""
    only_main: bool = False
    """Under the main load only, for which the server around the handler matters."""


@dataclass
class Measured:
    """What was measured of one contestant, a value for each round."""

    reports: dict[str, list[Report]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    """CPU milliseconds of the server for one answer."""
    pss_bytes: list[int] = field(default_factory=list)
    ping_seconds: list[float] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)
    model_cpu_ms: list[float] = field(default_factory=list)
    model_per_second: list[float] = field(default_factory=list)


# --- models ----------------------------------------------------------------------------------------------------------


def random_weights(data: Path, path: Path) -> None:
    """Weights of a ResNet-50 that nobody trained; batch norm fits the pictures, so that activations keep their size."""
    import torch
    from safetensors.torch import save_file
    from torchvision import models  # type: ignore[import-untyped]

    from inference.contract import InputContract
    from inference.preprocessing import preprocess
    from training.backbones import IMAGENET_NORMALISATION, calibrate

    torch.manual_seed(0)
    network = models.resnet50(weights=None)
    input = InputContract(224, 256, IMAGENET_NORMALISATION.mean, IMAGENET_NORMALISATION.std)
    some = [torch.from_numpy(preprocess(p.read_bytes(), input)) for p in pictures.sample(data, "train", 16)]
    calibrate(network, torch.stack(some))
    save_file(network.state_dict(), path)


def train(data: Path, folder: Path, *flags: str) -> Path:
    """Kelpie's training as it is; returns the folder of the model. Raises ChildFailed."""
    folder.mkdir(parents=True)
    argv = [own_python(), "-m", "training", "--data", str(data), "--output", str(folder), *flags]
    name = f"training for {folder.name}"
    run(argv, name=name, cwd=folder, env=environment(), timeout_seconds=_TRAINING_SECONDS)
    return folder / "model"


def precision_flags(precision: str) -> tuple[str, ...]:
    """How training is told the precision; float32 is its default."""
    return () if precision == "float32" else ("--precision", precision)


def speed_models(data: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Archives of the random ResNet-50 by precision, and for those that could not be made the reason.

    The agreement gate is open for them: agreement of random weights means nothing.
    """
    folder.mkdir(parents=True)
    weights = folder / "resnet50.safetensors"
    random_weights(data, weights)
    flags: tuple[str, ...] = (
        "--backbone",
        "resnet50",
        "--weights",
        "channel",
        "--weights-path",
        str(weights),
        "--image-size",
        "224",
    )
    flags += ("--epochs", "1")
    made, missing = {}, {}
    for precision in PRECISIONS:
        gate = () if precision == "float32" else ("--min-agreement", "0")
        try:
            model = train(data, folder / f"resnet50-{precision}", *flags, *precision_flags(precision), *gate)
        except ChildFailed as error:
            if precision == "float32":
                raise
            missing[precision] = f"training refused it: {str(error).splitlines()[-1][:200]}"
            continue
        says = served_precision(model)
        if says == precision:
            made[precision] = model
        else:
            missing[precision] = f"training fell back to {says}"
    return made, missing


def served_precision(model: Path) -> str:
    """What the archive's contract says it is computed in."""
    return str(json.loads((model / "model.json").read_text(encoding="utf-8")).get("precision", "float32"))


def quality(data: Path, folder: Path, epochs: int) -> dict[str, str]:
    """Accuracy, and agreement with float32, of a trained EfficientNet-Lite0 served in each precision.

    Measured with the handler of the archive, picture by picture, as it is served.
    """
    answers: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    tests = [(path, path.parent.name) for path in sorted((data / "test").rglob("*.jpg"))]
    for precision in PRECISIONS:
        flags = ("--weights", "package", "--image-size", "224", "--epochs", str(epochs), *precision_flags(precision))
        try:
            model = train(data, folder / f"lite0-{precision}", *flags)
        except ChildFailed as error:
            said[precision] = f"training refused it: {str(error).splitlines()[-1][:200]}"
            continue
        answers[precision] = classify(model, [path for path, _ in tests])
        right = sum(best == breed for best, (_, breed) in zip(answers[precision], tests, strict=True)) / len(tests)
        same = sum(a == b for a, b in zip(answers[precision], answers["float32"], strict=True)) / len(tests)
        fell_back = "" if served_precision(model) == precision else f", fell back to {served_precision(model)}"
        said[precision] = f"dogs: test {right:.1%}, agreement {same:.1%}{fell_back}"
    return said


def classify(model: Path, files: Sequence[Path]) -> list[str]:
    """The best class of each picture by the archive's own handler, in the serving environment."""
    program = (
        "import sys, json; from inference.handler import Request, model_fn, predict_fn; m = model_fn(sys.argv[1]);"
        "print(json.dumps([predict_fn(Request(open(p, 'rb').read(), 1), m)[0]['class'] for p in json.load(sys.stdin)]))"
    )
    answer = subprocess.run(
        [str(serving_python()), "-c", program, str(model)],
        input=json.dumps([str(path) for path in files]),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(model / "code"), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=_TRAINING_SECONDS,
        check=False,
    )
    if answer.returncode != 0:
        raise ChildFailed(f"the handler of {model.parent.name} failed:\n{answer.stderr[-2000:]}")
    best: list[str] = json.loads(answer.stdout.splitlines()[-1])
    return best


def serving_python() -> Path:
    """The interpreter of the serving image's environment, built if it is not there."""
    from workflow.local.images import Images

    return Images().python_for("kelpie-serving")


# --- contestants -----------------------------------------------------------------------------------------------------


def baseline_python() -> Path:
    """The interpreter of the baselines' environment.

    Raises:
        ChildFailed: it has not been made.
    """
    python = BASELINE_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise ChildFailed(f"there is no {python}: the baselines' environment is made by make bench-serving")
    return python


def contestants(models: dict[str, Path], expected: dict[str, dict[str, list[str] | None]]) -> list[Contestant]:
    """All servers; `expected` has the right answers of the original's preprocessing and of Kelpie's, by kind."""
    original, model = expected["original"], models["float32"]
    one_thread = {"OMP_NUM_THREADS": "1"}

    def env(extra: dict[str, str]) -> Callable[[int, Path], dict[str, str]]:
        path = f"{BASELINE_ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}"
        no_module = "no_module_of_a_user.py"  # else the toolkit would import this project's package `inference`
        return lambda _port, folder: environment(
            MODEL_FOLDER=str(model), SAGEMAKER_PROGRAM=no_module, **{"PATH": path, "HOME": str(folder), **extra}
        )

    def gunicorn(app: str) -> Callable[[int, Path], list[str]]:
        flags = ["-k", "gevent", "-w", str(_WORKERS), "--timeout", "300", "--log-level", "warning"]
        python = str(baseline_python())
        return lambda port, _: [python, "-m", "gunicorn", *flags, "-b", f"127.0.0.1:{port}", app]

    def litserve(port: int, _: Path) -> list[str]:
        return [str(baseline_python()), "-m", "benchmarks.baselines.litserve_server", str(port), str(_WORKERS)]

    flask, toolkit = (f"benchmarks.baselines.{name}:app" for name in ("flask_server", "toolkit_server"))
    found = [
        Contestant(AS_IS, gunicorn(flask), env({}), model, original),
        Contestant(FAIR, gunicorn(flask), env(one_thread), model, original),
    ]
    others = {
        "sagemaker-inference's transformer, fair form": gunicorn(toolkit),
        "LitServe, fair form": litserve,
        "TorchServe, fair form": torchserve,
    }
    for name, start in others.items():
        found.append(Contestant(name, start, env(one_thread), model, original, only_main=True))
    for precision, folder in models.items():
        right = expected["kelpie"] if precision == "float32" else dict.fromkeys(expected["kelpie"])
        found.append(kelpie(precision, folder, right))
    return found


def kelpie(precision: str, model: Path, expected: dict[str, list[str] | None]) -> Contestant:
    """Kelpie's server as the local cloud starts it."""
    from workflow.local.fleet import ServedModel

    def command(_port: int, folder: Path) -> list[str]:
        (folder / "opt" / "ml").mkdir(parents=True)
        (folder / "opt" / "ml" / "model").symlink_to(model)
        return [str(serving_python()), *ServedModel.arguments]

    def env(port: int, folder: Path) -> dict[str, str]:
        base = folder / "opt" / "ml"
        return {
            "HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(base / "model" / "code"),
            "SAGEMAKER_BASE_DIR": str(base),
            "SAGEMAKER_BIND_TO_PORT": str(port),
        }

    return Contestant(f"Kelpie {precision}", command, env, model, expected, precision)


def torchserve(port: int, folder: Path) -> list[str]:
    """TorchServe with its own model archive of the original handler, in the foreground."""
    store = folder / "store"
    store.mkdir(parents=True)
    handler = ROOT / "benchmarks" / "baselines" / "torchserve_handler.py"
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {"modelName": "resnet", "modelVersion": "1.0", "handler": handler.name},
    }
    with zipfile.ZipFile(store / "resnet.mar", "w") as archive:
        archive.write(handler, handler.name)
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    config = folder / "config.properties"
    addresses = {"inference_address": port, "management_address": free_port(), "metrics_address": free_port()}
    lines = [f"{name}=http://127.0.0.1:{number}" for name, number in addresses.items()]
    lines += [f"{name}={free_port()}" for name in ("grpc_inference_port", "grpc_management_port")]
    lines += [f"default_workers_per_model={_WORKERS}", "disable_token_authorization=true", "load_models=resnet.mar"]
    lines += [f"model_store={store}", "default_response_timeout=300", "job_queue_size=1000"]
    config.write_text("\n".join(lines) + "\n")
    start = "from ts.model_server import start; start()"
    flags = ["--start", "--foreground", "--ncs", "--disable-token-auth", "--ts-config", str(config)]
    return [str(baseline_python()), "-c", start, *flags, "--model-store", str(store), "--models", "resnet.mar"]


def why_not(contestant: Contestant) -> str:
    """Why a contestant cannot be measured here; empty if it can."""
    if contestant.name.startswith("TorchServe"):
        try:
            subprocess.run(["java", "-version"], capture_output=True, check=True)  # noqa: S607
        except (OSError, subprocess.CalledProcessError):
            return "it needs Java, which is not installed"
    return ""


# --- one server ------------------------------------------------------------------------------------------------------


@contextmanager
def served(contestant: Contestant, folder: Path, picture: Path, measured: Measured) -> Any:
    """The server, once it has answered `picture`; gives its process and its port."""
    folder.mkdir(parents=True)
    port = free_port()
    argv, env = contestant.command(port, folder), contestant.env(port, folder)
    with running(argv, name=contestant.name, cwd=folder, env=env) as child:
        _until(child, lambda: _status(port, "GET", "/ping") == 200)
        measured.ping_seconds.append(child.seconds)
        body = picture.read_bytes()
        _until(child, lambda: _status(port, "POST", "/invocations", body) == 200)
        measured.answer_seconds.append(child.seconds)
        yield child, port


def _until(child: Child, ready: Callable[[], bool]) -> None:
    assert child.process is not None
    while not ready():
        if not child.process.is_running or child.seconds > _READY_SECONDS:
            raise NotReady(f"{child.name} is not ready after {child.seconds:.0f} s:\n{child.tail()}")
        time.sleep(0.02)


def _status(port: int, method: str, path: str, body: bytes | None = None) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def load(plan: Plan, name: str) -> Report:
    """Carry a plan out in a process of its own.

    Raises:
        ChildFailed: the server answered wrongly.
    """
    timeout = plan.seconds + plan.drain_seconds + 60
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.client"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise ChildFailed(f"{name} answered wrongly: {done.stderr.strip()[-1500:]}")
    return Report(**json.loads(done.stdout))


def measure_one(
    contestant: Contestant,
    conditions: Sequence[Condition],
    files: dict[str, list[Path]],
    classes: list[str],
    folder: Path,
    measured: Measured,
) -> None:
    """Start the server, check its answer to every picture, and put every load on it once."""
    checks: dict[str, Report] = {}
    with served(contestant, folder, files["small"][0], measured) as (child, port):
        for condition in conditions:
            if contestant.only_main and condition.name != MAIN:
                continue
            chosen = [str(path) for path in files[condition.kind]]
            request = (port, "/invocations", condition.content_type, chosen)
            if condition.kind not in checks:  # every picture once; a warm-up too
                once = Plan(*request, contestant.expected[condition.kind], classes, 1, 60.0, requests=len(chosen))
                checks[condition.kind] = load(once, contestant.name)
            checked = checks[condition.kind]
            if checked.unanswered:
                raise ChildFailed(f"{contestant.name} does not answer: {condition.name}:\n{child.tail()}")
            loaded = Plan(*request, checked.best, classes, condition.concurrency, condition.seconds)
            before = child.cpu_seconds
            report = load(loaded, contestant.name)
            spent = child.cpu_seconds - before
            answers = len(report.latencies_ms)
            if not answers:
                raise ChildFailed(f"{contestant.name} answered nothing: {condition.name}")
            measured.reports.setdefault(condition.name, []).append(report)
            measured.cpu_ms.setdefault(condition.name, []).append(spent * 1000 / answers)
            if condition.name == MAIN:
                measured.pss_bytes.append(child.pss_bytes)


def probe(contestant: Contestant, picture: Path, seconds: float, measured: Measured) -> None:
    """The model alone in the serving environment."""
    program = ROOT / "benchmarks" / "runtime_probe.py"
    done = subprocess.run(
        [str(serving_python()), str(program), str(contestant.model), str(picture), str(seconds)],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(contestant.model / "code"), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise ChildFailed(f"{contestant.name} alone failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    if said["precision"] != contestant.precision:
        raise ChildFailed(f"{contestant.name} computes in {said['precision']} on this machine")
    measured.model_cpu_ms.append(said["cpu_ms"])
    measured.model_per_second.append(said["per_second"])


# --- tables ----------------------------------------------------------------------------------------------------------


def rate(report: Report) -> float:
    """Answers a second, until the last answer."""
    return len(report.latencies_ms) / report.seconds


def load_table(
    condition: Condition, found: dict[str, Measured], missing: dict[str, str], said: dict[str, str]
) -> Table:
    """Requests a second under one load, with latencies, CPU time and the runtime's own limit."""
    rows = []
    for name, measured in found.items():
        reports = measured.reports.get(condition.name, [])
        if not reports:
            continue
        latencies = [value for report in reports for value in report.latencies_ms]
        more: dict[str, float | str] = {f"p{p} ms": percentile(latencies, p / 100) for p in (50, 95, 99)}
        more["CPU ms a request"] = request_ms = statistics.median(measured.cpu_ms[condition.name])
        if measured.model_cpu_ms:
            more["model CPU ms"] = model_ms = statistics.median(measured.model_cpu_ms)
            more["of them in the model"] = f"{model_ms / request_ms:.0%}"
        if refused := sum(report.refused for report in reports):
            more["503, tried again"] = refused
        if unanswered := sum(report.unanswered for report in reports):
            more["unanswered at the end"] = unanswered
        limit = statistics.median(measured.model_per_second) if measured.model_per_second else None
        precision = name.removeprefix("Kelpie ")
        agreement = "float32 by eager PyTorch" if name == precision else said.get(precision, "")
        rows.append(Row(name, [rate(r) for r in reports], agreement, limit, more))
    rows += [Row(name, missing=reason) for name, reason in missing.items()]
    note = (
        "Random ResNet-50 weights: these rows are for speed only. Accuracy and agreement: a trained EfficientNet-Lite0."
    )
    quoted = [row.name for row in rows if row.name.startswith("Kelpie")] if condition.name == MAIN else []
    limit_name = "the model alone on all cores"
    return Table(f"Serving, {condition.name}", "requests/s", "higher", rows, _present(rows), limit_name, note, quoted)


def _present(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(name for name in (AS_IS, FAIR) if any(row.name == name for row in rows))


def tail_table(found: dict[str, Measured]) -> Table:
    """The 99th percentile at concurrency 8."""
    rows = []
    for name, measured in found.items():
        rows.append(Row(name, [percentile(report.latencies_ms, 0.99) for report in measured.reports[MAIN]]))
    best = min((row for row in rows if not row.name.startswith("Kelpie")), key=lambda row: row.median)
    note = "The best baseline is the one to compare with."
    return Table(f"99th percentile, {MAIN}", "ms", "lower", rows, (best.name,), note=note)


def standing_table(found: dict[str, Measured]) -> list[Table]:
    """Memory and start."""
    memory = [Row(name, [value / 2**20 for value in m.pss_bytes]) for name, m in found.items()]
    start = [
        Row(name, m.ping_seconds, more={"first answer, s": statistics.median(m.answer_seconds)})
        for name, m in found.items()
    ]
    note = "Proportional set size of all processes of the server, after the load at concurrency 8."
    honest = "A ping is honest if the first answer follows at once: some servers ping before their model is loaded."
    return [
        Table("Memory of a server", "MiB", "lower", memory, _present(memory), note=note),
        Table("Start of a server to its first 200 on /ping", "s", "lower", start, _present(start), note=honest),
    ]


def hardware_table(found: dict[str, Measured], measured: limits.Limits) -> Table:
    """The model alone against the machine's matrix products."""
    rows = []
    for name, each in found.items():
        if each.model_per_second:
            gemm = measured.gemm(name.removeprefix("Kelpie "))
            limit = None if gemm is None else gemm / GFLOP_PER_PICTURE
            rows.append(Row(name, each.model_per_second, limit=limit))
    note = "A ResNet-50 at 224 pixels is 8.18 GFLOP. The limit is torch's product of two large square matrices."
    limit_name = "the matrix product's speed"
    return Table("The model alone, a thread a core", "pictures/s", "higher", rows, limit_name=limit_name, note=note)


def expectations(
    model: Path, files: dict[str, list[Path]], classes: list[str]
) -> dict[str, dict[str, list[str] | None]]:
    """The right answers, by eager PyTorch: for the original's preprocessing and for Kelpie's."""
    import torch

    from benchmarks.baselines.network import load as load_network
    from benchmarks.baselines.network import logits
    from inference.contract import ModelContract
    from inference.preprocessing import preprocess

    network = load_network(model)
    contract = ModelContract.load(model)

    def original(path: Path) -> str:
        numbers = logits(network, path.read_bytes())
        return classes[max(range(len(numbers)), key=numbers.__getitem__)]

    def ours(path: Path) -> str:
        with torch.no_grad():
            logits_NK = network(torch.from_numpy(preprocess(path.read_bytes(), contract.input))[None])
        return classes[int(logits_NK.argmax())]

    return {
        "original": {kind: [original(path) for path in paths] for kind, paths in files.items()},
        "kelpie": {kind: [ours(path) for path in paths] for kind, paths in files.items()},
    }


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `serving`."""
    conditions, rounds = (QUICK, 1) if quick else (WHOLE, 3)
    baseline_python()
    measured_limits = limits.limits(quick)
    data = pictures.dogs(folder / "dogs", 60 if quick else pictures.IMAGE_COUNT)
    few = pictures.dogs(folder / "few", 60)
    count = 2 if quick else 8
    files = {
        "small": pictures.small_jpegs(data, folder / "sent", count),
        "large": pictures.large_jpegs(data, folder / "sent", max(1, count // 4)),
        "png": pictures.pngs(data, folder / "sent", count),
    }
    models, missing = speed_models(few, folder / "models")
    classes = list(json.loads((models["float32"] / "model.json").read_text(encoding="utf-8"))["classes"])
    said = dict.fromkeys(PRECISIONS, "") if quick else quality(data, folder / "quality", 3)
    wanted = expectations(models["float32"], files, classes)
    found: dict[str, Measured] = {}
    absent = {f"Kelpie {precision}": reason for precision, reason in missing.items()}
    everybody = contestants(models, wanted)
    for number in range(rounds):
        for contestant in everybody:
            if contestant.name in absent:
                continue
            if reason := why_not(contestant):
                absent[contestant.name] = reason
                continue
            measured = found.setdefault(contestant.name, Measured())
            place = folder / f"round-{number}" / contestant.name.replace(" ", "-").replace(",", "")
            print(f"{contestant.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            try:
                measure_one(contestant, conditions, files, classes, place, measured)
            except NotReady as error:
                if contestant.precision:
                    raise
                print(error, file=sys.stderr, flush=True)
                absent[contestant.name] = "it does not start here"
                del found[contestant.name]
                continue
            if contestant.precision:
                probe(contestant, files["small"][0], 0.2 if quick else 2.0, measured)
    tables = [load_table(condition, found, absent, said) for condition in conditions]
    return [
        *tables,
        tail_table(found),
        *standing_table(found),
        hardware_table(found, measured_limits),
        limits.table(measured_limits),
    ]
