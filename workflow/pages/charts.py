"""Charts of the report as HTML and SVG text: they scale, print, and follow the page's colours.

Pure functions; every text that they are given is escaped in what they return.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 460.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 14.0, 16.0, 42.0
_MAX_POINTS = 400
_NICE = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Series:
    """One line of a chart: its name and its (x, y) points in order of x."""

    name: str
    points: Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values from `low` to `high`; one value when both are the same."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in _NICE if nice * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    percent: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Lines over a common x axis; `marks` are upright lines with a word each. Both axes begin at zero.

    Raises:
        ValueError: no series has a point.
    """
    points = [point for line in series for point in line.points]
    if not points:
        raise ValueError(f"the chart {title!r} has no points")
    x_low, x_high = min(0.0, *(x for x, _ in points)), max(1.0, *(x for x, _ in points))
    y_high = 1.0 if percent else max(y for _, y in points) * 1.05 or 1.0
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        return _LEFT + across * inner_width, _TOP + (1 - min(y, y_high) / y_high) * inner_height

    drawn = [_frame_start(title)]
    for value in ticks(0, y_high, 4):
        _, y = at(x_low, value)
        text = f"{value:.0%}" if percent else _number(value)
        drawn.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        drawn.append(f'<text class="tick y" x="{_LEFT - 8}" y="{y + 4:.1f}">{text}</text>')
    for value in ticks(x_low, x_high, 6):
        x, _ = at(value, 0)
        drawn.append(f'<text class="tick x" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{_number(value)}</text>')
    drawn.append(f'<text class="axis" x="{_LEFT + inner_width / 2}" y="{_HEIGHT - 6}">{escape(x_label)}</text>')
    for position, word in marks:
        x, _ = at(position, 0)
        drawn.append(f'<path class="event" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        drawn.append(f'<text class="event" x="{x + 5:.1f}" y="{_TOP + 9}">{escape(word)}</text>')
    for number, line in enumerate(series):
        kept = line.points[:: -(-len(line.points) // _MAX_POINTS)] if line.points else ()
        places = [at(x, y) for x, y in kept]
        if len(places) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            drawn.append(f'<path class="line s{number}" d="M{path}"/>')
        for (x, y), (value_x, value_y) in zip(places, kept, strict=True):
            said = f"{value_y:.1%}" if percent else f"{value_y:.4g}"
            drawn.append(
                f'<circle class="dot s{number}" cx="{x:.1f}" cy="{y:.1f}" r="{3 if len(places) <= 40 else 2}">'
                f"<title>{escape(line.name)} {said} at {escape(x_label)} {_number(value_x)}</title></circle>"
            )
    drawn.append("</svg>")
    if len(series) > 1:
        names = "".join(f'<span class="key s{i}">{escape(line.name)}</span>' for i, line in enumerate(series))
        drawn.append(f'<p class="keys">{names}</p>')
    return "".join(drawn)


def histogram(title: str, values: Sequence[float], *, x_label: str, bins: int = 10) -> str:
    """How many values lie in each of some equal parts of their range.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError(f"the histogram {title!r} has no values")
    edges = ticks(0, max(values) * 1.0001, bins)
    step = edges[1] - edges[0] if len(edges) > 1 else max(values) or 1.0
    first = math.floor(min(values) / step)
    count = math.floor(max(values) / step) - first + 1
    counts = [0] * count
    for value in values:
        counts[math.floor(value / step) - first] += 1
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    highest = max(counts)
    width = inner_width / count
    drawn = [_frame_start(title)]
    for value in ticks(0, highest, 4):
        if value == int(value):
            y = _TOP + (1 - value / highest) * inner_height
            drawn.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            drawn.append(f'<text class="tick y" x="{_LEFT - 8}" y="{y + 4:.1f}">{value:.0f}</text>')
    labelled = -(-count // 8)
    for number, amount in enumerate(counts):
        x, height = _LEFT + number * width, amount / highest * inner_height
        low, high = _number((first + number) * step), _number((first + number + 1) * step)
        drawn.append(
            f'<rect class="bar" x="{x + 1:.1f}" y="{_TOP + inner_height - height:.1f}" width="{max(1, width - 2):.1f}" '
            f'height="{height:.1f}"><title>{amount} from {low} to {high} {escape(x_label)}</title></rect>'
        )
        if number % labelled == 0:
            drawn.append(f'<text class="tick x" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}">{low}</text>')
    drawn.append(f'<text class="axis" x="{_LEFT + inner_width / 2}" y="{_HEIGHT - 6}">{escape(x_label)}</text></svg>')
    return "".join(drawn)


def _frame_start(title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(title)}">'
        f'<path class="base" d="M{_LEFT} {_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>'
    )


def confusion_matrix(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """A table: rows are true classes, columns predicted ones; the deeper the colour, the larger the share of the row.

    Green lies on the diagonal, red beside it. `matrix[k][j]` counts pictures of class k that were taken for class j.
    """
    head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in classes)
    rows = []
    for k, (name, counts) in enumerate(zip(classes, matrix, strict=True)):
        total = sum(counts)
        cells = []
        for j, count in enumerate(counts):
            share = count / total if total else 0.0
            if not count:
                cells.append('<td class="none">·</td>')
                continue
            words = f"{count} of {total} {name} as {classes[j]}"
            kind = "right" if j == k else "wrong"
            cells.append(
                f'<td class="{kind}" style="--share:{12 + 70 * share:.0f}%" title="{escape(words)}">{count}</td>'
            )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return (
        '<table class="confusion"><caption>Rows: what it is. Columns: what the model says.</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
