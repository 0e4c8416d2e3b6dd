"""On what a measurement was made: the machine, what else it did, the versions of everything, the commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]
LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "numpy", "pillow", "starlette", "uvicorn",
             "moto", "boto3", "stepfunctions", "sagemaker")  # fmt: skip
BASELINE_ENVIRONMENT = ROOT / "build" / "bench" / "venv"
BASELINE_LIBRARIES = ("flask", "gunicorn", "gevent", "litserve", "torchserve", "sagemaker-inference")
INTERESTING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")


def versions() -> dict[str, str]:
    """The installed versions, those of the baselines' environment too; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    there = distributions(path=[str(path) for path in BASELINE_ENVIRONMENT.glob("lib/python*/site-packages")])
    theirs = {each.name.lower().replace("_", "-"): each.version for each in there}
    return found | {name: theirs[name] for name in BASELINE_LIBRARIES if name in theirs}


def record() -> dict[str, Any]:
    """What does not change during a run."""
    about = _cpu_info()
    flags = cpu_flags()
    return {
        "cpu": about.get("model name") or platform.processor() or platform.machine(),
        "cpu_vendor": about.get("vendor_id", ""),
        "cpu_family_model_stepping": "/".join(about.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "cpu_flags": [flag for flag in INTERESTING_FLAGS if flag in flags],
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "virtual": "hypervisor" in flags,
        "interpreter": sys.implementation.cache_tag,
        "versions": versions(),
        "commit": _commit(),
    }


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def cpu_flags() -> frozenset[str]:
    """What the CPU says that it can do; nothing if it does not say so in /proc/cpuinfo."""
    return frozenset(_cpu_info().get("flags", "").split())


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = text.partition("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _commit() -> str:
    """The commit that is checked out, with `+changes` if tracked files differ from it; documents do not count."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "-uno", "--", ".", ":!*.md")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
