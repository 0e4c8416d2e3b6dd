"""What a script has measured: tables of rows, and the dated JSON file that keeps them.

A row holds one value for each round; what is told of it, and its ratios to other rows, are made here from these values.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

FORMAT_VERSION = 1
RESULTS = Path(__file__).with_name("results")
SCRIPTS = ("limits", "training", "serving", "image", "orchestration", "lambdas", "demo")
"""Every script, in the order in which all are run and shown."""


class RecordError(ValueError):
    """A result cannot be made of these values, or a file is not one."""


@dataclass(frozen=True)
class Row:
    """What one contestant reached: a value for each round, or none and the reason why."""

    name: str
    values: Sequence[float] = ()
    quality: str = ""
    """Accuracy, or agreement with the float32 model, that goes with the values."""
    limit: float | None = None
    """What the machine, or the layer below, can do at most in the table's unit, measured in the same run."""
    more: Mapping[str, float | str] = field(default_factory=dict)
    """Further columns by their heading."""
    missing: str = ""
    """Why there are no values."""
    is_bound: bool = False
    """The values are what it took without arriving: what it would take is more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if bool(self.values) == bool(self.missing):
            raise RecordError(f"{self.name}: a row has either values or a reason why there are none")
        numbers = [*self.values, *(v for v in self.more.values() if not isinstance(v, str))]
        numbers += [] if self.limit is None else [self.limit]
        if not all(math.isfinite(number) for number in numbers):
            raise RecordError(f"{self.name}: {numbers} are not all finite numbers")

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Table:
    """Rows that are measured in the same unit, with the rows that the others are compared with."""

    title: str
    unit: str
    better: Literal["higher", "lower"]
    rows: Sequence[Row]
    baselines: Sequence[str] = ()
    """Names of rows."""
    limit_name: str = ""
    note: str = ""
    headlines: Sequence[str] = ()
    """Names of the rows that the README quotes."""

    def __post_init__(self) -> None:
        for key in ("rows", "baselines", "headlines"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names):
            raise RecordError(f"{self.title}: two rows have the same name: {names}")
        strangers = [name for name in (*self.baselines, *self.headlines) if name not in names]
        if strangers:
            raise RecordError(f"{self.title}: no row is called {strangers[0]!r}; there are {names}")
        if self.better not in ("higher", "lower"):
            raise RecordError(f"{self.title}: better must be higher or lower, got {self.better!r}")

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def times(self, row: Row, baseline: str) -> float | None:
        """How many times better the row is than the baseline; None if one was not measured, or both are bounds.

        If the baseline alone is a bound, so is this: the row is better by more than that; by less, if the row alone is.
        With as many rounds on both sides, the median of the ratios of the rounds, in which both met the same machine.
        """
        other = self.row(baseline)
        if not row.values or not other.values or (row.is_bound and other.is_bound):
            return None
        pairs = list(zip(row.values, other.values, strict=True)) if len(row.values) == len(other.values) else []
        pairs = pairs or [(row.median, other.median)]
        if self.better == "lower":
            pairs = [(theirs, ours) for ours, theirs in pairs]
        if any(below <= 0 for _, below in pairs):
            return None
        return statistics.median(above / below for above, below in pairs)

    def share_of_limit(self, row: Row) -> float | None:
        """How much of the limit is reached, 1 for all of it; None without a limit."""
        if row.limit is None or not row.values or row.limit <= 0 or row.median <= 0:
            return None
        return row.median / row.limit if self.better == "higher" else row.limit / row.median


@dataclass(frozen=True)
class Result:
    """One run of one script."""

    script: str
    started: str
    """Local time, ISO 8601 with the offset."""
    seconds: float
    command: str
    quick: bool
    """A smoke test of the script: its figures mean nothing."""
    environment: Mapping[str, Any]
    tables: Sequence[Table]

    def write(self, folder: Path) -> Path:
        """Write `<date>-<time>-<script>.json` and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        when = datetime.fromisoformat(self.started)
        path = folder / f"{when:%Y-%m-%d-%H%M%S}-{self.script}.json"
        document = {"format_version": FORMAT_VERSION, **asdict(self)}
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        return path


def read(path: Path) -> Result:
    """Read what `Result.write` wrote.

    Raises:
        RecordError: another format version, or values that do not fit together.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    version = document.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise RecordError(
            f"{path.name} has format version {version!r}, this code reads {FORMAT_VERSION}: measure again"
        )
    tables = [Table(**{**table, "rows": [Row(**row) for row in table["rows"]]}) for table in document["tables"]]
    return Result(**{**document, "tables": tuple(tables)})


def newest(script: str, folder: Path = RESULTS) -> Result | None:
    """The newest result of a script; smoke tests do not count."""
    for path in sorted(folder.glob(f"*-{script}.json"), reverse=True):
        result = read(path)
        if result.script == script and not result.quick:
            return result
    return None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share (0 to 1) of the values does not exceed."""
    if not values or not 0 < share <= 1:
        raise RecordError(f"no percentile {share} of {len(values)} values")
    return sorted(values)[math.ceil(share * len(values)) - 1]
