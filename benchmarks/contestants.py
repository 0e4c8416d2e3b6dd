"""The servers that are compared: how each is started, with which model and in which environment."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.children import ROOT, TUNED_ALLOCATOR, ChildFailed, environment, free_port
from benchmarks.environment import BASELINE_ENVIRONMENT, cpu_flags

AS_IS = "original handler, as people run it"
FAIR = "original handler, fair form"
WITHOUT_AMX = "Kelpie int8, as on a CPU without AMX"
NO_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
"""Source: oneDNN's documentation, "CPU Dispatcher Control", read 2026-11-22; OpenVINO's own copy of it obeys."""
_WORKERS = 2
"""Of every baseline: what the original project ran."""


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
    shares_by_chance: bool = False
    """Whichever of its workers is first takes a connection and keeps it: one may get all of them, or none."""
    runtime_env: Mapping[str, str] = field(default_factory=dict)
    """What its model is loaded with besides, in the server and alone."""


def serving_python() -> Path:
    """The interpreter of the serving image's environment, built if it is not there."""
    from workflow.local.images import Images

    return Images().python_for("kelpie-serving")


def baseline_python() -> Path:
    """The interpreter of the baselines' environment.

    Raises:
        ChildFailed: it has not been made.
    """
    python = BASELINE_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise ChildFailed(f"there is no {python}: the baselines' environment is made by make bench-serving")
    return python


def has_amx() -> bool:
    """Whether int8 is computed with AMX, so that the same without it is worth a row of its own."""
    return "amx_int8" in cpu_flags()


def contestants(models: dict[str, Path], expected: dict[str, dict[str, list[str] | None]]) -> list[Contestant]:
    """All servers; `expected` has the right answers of the original's preprocessing and of Kelpie's, by kind.

    Those that are compared most follow each other, because a machine's speed changes within minutes.
    """
    original, model = expected["original"], models["float32"]
    tuned = {"OMP_NUM_THREADS": "1", **TUNED_ALLOCATOR}

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
        Contestant(AS_IS, gunicorn(flask), env({}), model, original, shares_by_chance=True),
        Contestant(FAIR, gunicorn(flask), env(tuned), model, original, shares_by_chance=True),
    ]
    for precision, folder in models.items():
        right = expected["kelpie"] if precision == "float32" else dict.fromkeys(expected["kelpie"])
        found.append(kelpie(precision, folder, right))
        if precision == "int8" and has_amx():
            found.append(replace(found[-1], name=WITHOUT_AMX, only_main=True, runtime_env=NO_AMX))
    transformer = "sagemaker-inference's transformer, fair form"
    found.append(
        Contestant(transformer, gunicorn(toolkit), env(tuned), model, original, only_main=True, shares_by_chance=True)
    )
    for name, start in {"LitServe, fair form": litserve, "TorchServe, fair form": torchserve}.items():
        found.append(Contestant(name, start, env(tuned), model, original, only_main=True))
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
