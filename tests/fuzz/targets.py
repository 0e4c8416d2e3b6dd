"""What is fuzzed, how often, and what may come of it; written to docs/reference/fuzz.md.

`python tests/fuzz/targets.py` writes that file again. `quick` counts are for `make test`, `thorough` ones for
`make test-all`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

PROFILES = pytest.mark.parametrize(
    "profile", ["quick", pytest.param("thorough", marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
DEADLINE = timedelta(seconds=20)
"""Longest time of one example, on a busy machine too: what hangs takes longer, and what is slow does not."""


@dataclass(frozen=True)
class Target:
    """One entrance: what is sent to it, how many examples of that, and every outcome that is allowed.

    An outcome is `ok`, an HTTP status with its error name, or the name of an exception class.
    """

    what: str
    quick: int
    thorough: int
    allowed: tuple[str, ...]


_HTTP = (
    "200",
    "400 InvalidBase64",
    "400 InvalidImage",
    "400 InvalidJson",
    "400 InvalidRequest",
    "400 InvalidTopK",
    "413 BodyTooLarge",
    "413 ImageTooLarge",
    "415 UnsupportedContentType",
)

TARGETS: dict[str, Target] = {
    "pictures": Target(
        "endpoint: damaged JPEG, PNG and WebP files, absurd sizes, random bytes",
        80, 2000, ("200", "400 InvalidImage", "413 ImageTooLarge"),
    ),
    "documents": Target(
        "endpoint: any JSON, and bytes that are nearly JSON",
        60, 1500,
        ("200", "400 InvalidBase64", "400 InvalidImage", "400 InvalidJson", "400 InvalidRequest", "400 InvalidTopK"),
    ),
    "requests": Target(
        "endpoint: any method, path, header bytes, and body in any pieces",
        80, 1500, (*_HTTP, "404 NotFound", "405 MethodNotAllowed", "503 Overloaded"),
    ),
    "bytes on the wire": Target(
        "endpoint's process: any bytes in place of HTTP; it answers the next request",
        15, 500, ("200", "400", "404", "405", "413", "415", "nothing"),
    ),
    "model archives": Target(
        "local cloud: tar.gz with traversal, links, devices, bombs, sparse and repeated members, damaged bytes",
        60, 1500, ("ok", "UnsafeArchive"),
    ),
    "object keys": Target(
        "local cloud: names of S3 objects on their way into a folder",
        60, 1500, ("ok", "TransferFailed"),
    ),
    "model contracts": Target(
        "serving: any `model.json`",
        60, 1500, ("ok", "InvalidContract"),
    ),
    "evidence archives": Target(
        "smoke test Lambda: the same archives as evidence",
        40, 1000, ("ok", "InvalidEvidence"),
    ),
    "champion archives": Target(
        "training: the same archives as the champion's model",
        40, 1000, ("ok",),
    ),
    "execution inputs": Target(
        "ResolveInput and `kelpie start`: any JSON object near the schema; both must say the same",
        80, 2000, ("ok", "InvalidInput and ConfigError"),
    ),
    "input texts": Target(
        "`kelpie start --input`: any text",
        60, 1000, ("ok", "UsageError"),
    ),
    "kelpie.toml": Target(
        "any text, damaged valid files, any value for any key",
        60, 1500, ("ok", "ConfigError"),
    ),
    "ResolveInput events": Target("Lambda: any JSON", 40, 500, ("ok", "InvalidInput")),
    "CheckData events": Target("Lambda: any JSON", 40, 500, ("InvalidData",)),
    "CheckData listings": Target(
        "Lambda: any keys, sizes and ETags in the bucket", 100, 1000, ("ok", "InvalidData")
    ),
    "QualityGate events": Target("Lambda: any JSON", 60, 700, ("ok", "InvalidGate")),
    "SmokeTest events": Target("Lambda: any JSON", 40, 500, ("InvalidEvidence",)),
    "SmokeTest answers": Target("Lambda: any body from the endpoint", 60, 700, ("ok", "SmokeTestFailed")),
    "PruneVersions events": Target("Lambda: any JSON", 40, 500, ("ok", "InvalidRetention")),
    "Sweep events": Target(
        "Lambda: any JSON as an event about an execution's end, and any JSON as its history's last state",
        40, 500, ("ok", "CleanUpBroken"),
    ),
    "CleanUp events": Target("Lambda: any JSON; it always answers with an error and a cause", 60, 700, ("ok",)),
    "ChampionMarker events": Target(
        "Lambda: any JSON; what can be answered is answered", 40, 500, ("ok", "InvalidEvent")
    ),
    "Classify events": Target(
        "Lambda: any JSON as a direct call; with a `requestContext` it answers 400", 60, 700,
        ("ok", "InvalidRequest", "EndpointFailed"),
    ),
    "Classify requests": Target(
        "Lambda: HTTP events of format 2.0, whole and damaged", 60, 700, ("200", "400", "404", "413", "415"),
    ),
}  # fmt: skip


def budget(target: str, profile: str) -> Callable[[Any], Any]:
    """The hypothesis settings of a target; the quick examples are the same every time."""
    count = TARGETS[target].quick if profile == "quick" else TARGETS[target].thorough
    return settings(
        max_examples=count,
        derandomize=profile == "quick",
        database=None,
        deadline=DEADLINE,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def allow(target: str, outcome: str) -> None:
    """Fail when the outcome is none of those that the table lists."""
    allowed = TARGETS[target].allowed
    assert outcome in allowed, f"{target}: {outcome!r} is none of {', '.join(allowed)}"


def outcome_of(call: Callable[[], Any], *typed: type[BaseException]) -> str:
    """`ok`, or the class name of a typed error; any other exception goes on."""
    caught: list[BaseException] = []
    try:
        call()
    except typed as error:
        caught.append(error)
    assert all(map(str, caught)), f"{caught} says nothing"
    return type(caught[0]).__name__ if caught else "ok"


def table() -> str:
    """The text of docs/reference/fuzz.md."""
    lines = [
        "# Hostile input",
        "",
        "Made by `python tests/fuzz/targets.py`; do not edit. `make test` runs the quick counts, the same examples",
        "every time; `make test-all` runs the thorough ones, other examples every time. To run them alone:",
        "",
        "```console",
        "$ .venv/bin/python -m pytest tests/fuzz -m 'slow or not slow'",
        "```",
        "",
        f"Each example must end within {DEADLINE.seconds} s in an outcome of its row, nothing may be written outside",
        "its folder, and what may grow is bounded: the bombs run in processes with a limit on their memory",
        "(`tests/fuzz/test_bombs.py`).",
        "",
        "| Sent to | Quick | Thorough | Allowed outcomes |",
        "|---|---|---|---|",
    ]
    for name, target in TARGETS.items():
        allowed = ", ".join(f"`{outcome}`" for outcome in target.allowed)
        lines.append(f"| **{name}**: {target.what} | {target.quick} | {target.thorough} | {allowed} |")
    quick, thorough = (sum(getattr(target, key) for target in TARGETS.values()) for key in ("quick", "thorough"))
    lines.append(f"| together | {quick} | {thorough} | |")
    return "\n".join(lines) + "\n"


REFERENCE = Path(__file__).parents[2] / "docs/reference/fuzz.md"

if __name__ == "__main__":
    REFERENCE.write_text(table(), encoding="utf-8")
