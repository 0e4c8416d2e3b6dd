"""The state graph as a picture: DOT text, an SVG that needs nothing else, and an HTML page around it.

Where states and arrows lie is decided in layout.py; what they look like is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from workflow.graph import Edge, Graph, Node
from workflow.pages.layout import (
    LEGEND_COLUMN,
    LEGEND_ROW,
    MARGIN,
    Arrow,
    Box,
    Page,
    lay_out,
    leads_back,
    short_label,
    take_apart,
)

if TYPE_CHECKING:
    from jinja2 import Environment

    from workflow.executions import Execution, StateVisit

_MAX_CAUSE = 500
_WORTH_SAYING_SECONDS = 0.05
_ICONS = {
    "SUCCEEDED": "M3.5 8.5l3 3 6-7",
    "FAILED": "M4.5 4.5l7 7M11.5 4.5l-7 7",
    "CAUGHT": "M12 11.5V7.5a3 3 0 0 0-3-3H4.5M7 2L4.5 4.5 7 7",
    "RUNNING": "M5.5 3.5l7 4.5-7 4.5z",
    "Task": "M4 3.5h8a.5.5 0 0 1 .5.5v8a.5.5 0 0 1-.5.5H4a.5.5 0 0 1-.5-.5V4a.5.5 0 0 1 .5-.5z",
    "Choice": "M8 2.5L13.5 8 8 13.5 2.5 8z",
    "Wait": "M8 2.5a5.5 5.5 0 1 0 .01 0zM8 5v3.2l2.2 1.3",
    "Pass": "M3.5 8h9M9.5 5l3 3-3 3",
    "Succeed": "M3.5 8.5l3 3 6-7",
    "Fail": "M4.5 4.5l7 7M11.5 4.5l-7 7",
}
_RETRY_ICON = "M12.5 8a4.5 4.5 0 1 1-1.5-3.35M11.2 1.8v3h-3"


# --- sizes and words -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Times:
    """What an execution did in one state, over all its visits."""

    status: str
    visits: int
    attempts: int
    seconds: float | None
    why: str

    @property
    def words(self) -> str:
        """How often and how long, where that is worth a word."""
        times = f"{self.visits}× " if self.visits > 1 else ""
        if self.seconds is not None and self.seconds < _WORTH_SAYING_SECONDS:
            return times.strip()
        return times + ("…" if self.seconds is None else duration(self.seconds))


def _times(visits: Sequence[StateVisit]) -> dict[str, _Times]:
    found = {}
    for name in dict.fromkeys(visit.name for visit in visits):
        own = [visit for visit in visits if visit.name == name]
        ended = [visit.seconds() for visit in own if visit.exited is not None]
        found[name] = _Times(
            own[-1].status,
            len(own),
            max(visit.attempts for visit in own),
            sum(ended) if len(ended) == len(own) else None,
            why(own[-1]),
        )
    return found


def why(visit: StateVisit) -> str:
    """Error and cause of a visit in one sentence, without what a Lambda or a training job packs around it."""
    cause = visit.cause
    with suppress(ValueError):
        packed = json.loads(cause)
        if isinstance(packed, dict):
            cause = str(packed.get("errorMessage") or packed.get("FailureReason") or cause)
    cause = cause if len(cause) <= _MAX_CAUSE else cause[: _MAX_CAUSE - 1] + "…"
    return ": ".join(text for text in (visit.error, cause) if text)


def failed_state(graph: Graph, execution: Execution) -> str | None:
    """The state from which an execution took the way back, or None: the failure that counts, though it was caught."""
    gate = graph.way_back()
    steps = pairwise(visit.name for visit in execution.visits)
    return next((name for name, after in steps if after == gate), None)


def duration(seconds: float) -> str:
    """Seconds for a person: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _edge_tooltip(edge: Edge) -> str:
    words = {"catch": f"caught: {edge.label}", "next": edge.label}.get(edge.kind, edge.label)
    return f"{edge.source} → {edge.target}" + (f"\n{words}" if words else "")


def _node_tooltip(node: Node, marks: Iterable[Edge], times: _Times | None) -> str:
    lines = [f"{node.name} ({node.type})", node.comment]
    lines.append(f"waits {node.wait_seconds} s" if node.wait_seconds else "")
    lines.append(f"tried again up to {node.retries} times" if node.retries else "")
    lines += [f"{'caught: ' if edge.kind == 'catch' else ''}{edge.label or 'then'} → {edge.target}" for edge in marks]
    if times:
        attempts = f", {times.attempts} attempts" if times.attempts > 1 else ""
        lines.append(f"{times.status} {times.words}{attempts}")
        lines.append(times.why)
    return "\n".join(line for line in lines if line)


# --- DOT -------------------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _attributes(**values: object) -> str:
    # Unlike in a name, a backslash in an attribute begins an escape.
    escaped = {key: str(value).replace("\\", "\\\\").replace("\n", "\\n") for key, value in values.items()}
    return ", ".join(f"{key}={_quoted(value)}" for key, value in escaped.items())


def to_dot(graph: Graph, execution: Execution | None = None) -> str:
    """The graph in Graphviz's own language, with every transition and every tooltip.

    Source: https://graphviz.org/doc/info/attrs.html (read 2026-11).
    """
    parts, times = take_apart(graph), _times(execution.visits if execution else ())
    colours = {"SUCCEEDED": "#1a7f37", "FAILED": "#cf222e", "CAUGHT": "#9a6700", "RUNNING": "#0969da"}
    shapes = {"Choice": "hexagon", "Pass": "plain", "Wait": "ellipse", "Succeed": "ellipse", "Fail": "ellipse"}
    lines = [
        "digraph kelpie {",
        '    graph [rankdir="TB", ordering="out", nodesep="0.35", ranksep="0.3"];',
        '    node [fontname="Helvetica", fontsize="12", shape="box", style="rounded"];',
        '    edge [fontname="Helvetica", fontsize="9", color="#656c76", arrowsize="0.7"];',
    ]
    for node in graph.nodes:
        found = times.get(node.name)
        look: dict[str, object] = {"label": node.name + (f"\n{found.words}" if found else "")}
        look["tooltip"] = _node_tooltip(node, (), found)
        if node.type in shapes:
            look["shape"] = shapes[node.type]
        if node.name in parts.line:
            look["group"] = "main"
        if found:
            look |= {"color": colours.get(found.status, "black"), "penwidth": 2}
        lines.append(f"    {_quoted(node.name)} [{_attributes(**look)}];")
    on_line = set(pairwise(parts.line))
    bundled = {id(edge) for edges in parts.marks.values() for edge in edges}
    for edge in graph.edges:
        look = {"tooltip": _edge_tooltip(edge)}
        if edge.kind in ("choice", "default"):
            look["label"] = short_label(edge.label)
        if edge.kind == "catch" or edge.target in parts.back:
            look |= {"style": "dashed", "color": "#cf222e"}
        if (edge.source, edge.target) in on_line:
            look["weight"] = 100
        if id(edge) in bundled or leads_back(edge, parts.line):
            look["constraint"] = "false"
        lines.append(f"    {_quoted(edge.source)} -> {_quoted(edge.target)} [{_attributes(**look)}];")
    return "\n".join([*lines, "}"]) + "\n"


# --- SVG -------------------------------------------------------------------------------------------------------------


@cache
def _style() -> str:
    return (Path(__file__).parent / "drawing.css").read_text(encoding="utf-8")


def to_svg(graph: Graph, execution: Execution | None = None, *, every_state: bool = False) -> str:
    """The graph as an SVG of its own: light and dark, with tooltips, without scripts, fonts or anything from elsewhere.

    It shows the work and its way back, or every state. With an execution: all states that it visited, its path, and
    the status, duration and visits of each.
    """
    visited = [visit.name for visit in execution.visits] if execution else []
    if not every_state:
        graph = graph.overview(visited)
    page = lay_out(graph, wide=execution is not None)
    taken: set[tuple[str, str]] = set(pairwise(visited))
    times = _times(execution.visits if execution else ())
    if execution and (failed := failed_state(graph, execution)) and times[failed].status == "CAUGHT":
        times[failed] = replace(times[failed], status="FAILED")
    label = f"State machine, {len(graph.nodes)} states" + (f", execution {execution.name}" if execution else "")
    size = f'width="{page.width:.0f}" height="{page.height:.0f}" viewBox="0 0 {page.width:.0f} {page.height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="kelpie-graph{" executed" if execution else ""}" {size} '
        f'role="img" aria-label="{escape(label)}">',
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{page.width:.0f}" height="{page.height:.0f}" rx="10"/>',
        *_rail(page, taken),
        *(_arrow(arrow, page, times, taken) for arrow in page.layout.arrows),
        *_start(page, graph),
        *(_state(node, page, times.get(node.name)) for node in graph.nodes),
        *_legend(page, graph, times),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _start(page: Page, graph: Graph) -> list[str]:
    box = page.layout.boxes[graph.start_at]
    return [
        f'<circle class="start" cx="{box.x:.1f}" cy="{box.top - 22:.1f}" r="5"/>',
        f'<path class="edge{" " if not graph.edges else ""}" d="M{box.x:.1f} {box.top - 17:.1f}V{box.top - 5:.1f}"/>',
        _head((box.x, box.top - 12), (box.x, box.top), "edge"),
    ]


def _rail(page: Page, taken: set[tuple[str, str]]) -> list[str]:
    """The dashed line that collects all failures, with a stub from each state of the main line and each aside."""
    parts, boxes, x = page.parts, page.layout.boxes, page.rail_x
    if x is None or parts.gate is None:
        return []
    beside = [name for names in parts.asides.values() for name in names]
    stubs = [name for name in boxes if (name in parts.line and name in parts.marks) or name in beside]
    gate = boxes[parts.gate]
    first = min((boxes[name].y for name in stubs), default=gate.top)
    drawn = [
        f'<path class="back" d="M{x:.1f} {first:.1f}V{gate.top - 6:.1f}"/>',
        _head((x, gate.top - 12), (x, gate.top), "back"),
    ]
    for name in stubs:
        drawn.append(f'<path class="back" d="M{boxes[name].left:.1f} {boxes[name].y:.1f}H{x:.1f}"/>')
    for source, target in sorted(taken):
        if target == parts.gate and source in boxes and source not in parts.back:
            box = boxes[source]
            drawn.append(f'<path class="back taken" d="M{box.left:.1f} {box.y:.1f}H{x:.1f}V{gate.top - 6:.1f}"/>')
            drawn.append(_head((x, gate.top - 12), (x, gate.top), "back taken"))
    return drawn


def _edge_class(edge: Edge, page: Page, times: Mapping[str, _Times], taken: set[tuple[str, str]]) -> str:
    beside = {name for names in page.parts.asides.values() for name in names}
    kind = "edge"
    if edge.target in beside or edge.source in page.parts.back:
        kind = "back"
    elif edge.kind == "catch":
        kind = "catch"
    if (edge.source, edge.target) in taken:
        # Both a Catch and Next can lead to the same state: how the state ended says which was taken.
        caught = times[edge.source].status == "CAUGHT"
        if edge.kind not in ("next", "catch") or caught == (edge.kind == "catch"):
            kind += " taken"
    return kind


def _arrow(arrow: Arrow, page: Page, times: Mapping[str, _Times], taken: set[tuple[str, str]]) -> str:
    kind = _edge_class(arrow.edge, page, times, taken)
    path = _onto(arrow.path, page.layout.boxes[arrow.edge.source], page.layout.boxes[arrow.edge.target])
    (x, y), *rest = path
    curve = f"M{x:.1f} {y:.1f}" + "".join(
        "C" + " ".join(f"{px:.1f} {py:.1f}" for px, py in rest[i : i + 3]) for i in range(0, len(rest), 3)
    )
    drawn = f'<g class="{kind}"><title>{escape(_edge_tooltip(arrow.edge))}</title><path d="{curve}"/>'
    drawn += _head(next(point for point in reversed(path) if point != path[-1]), path[-1], "")
    if arrow.label_at:
        x, y = arrow.label_at
        drawn += f'<text class="rule" x="{x:.1f}" y="{y + 3.5:.1f}">{escape(short_label(arrow.edge.label))}</text>'
    return drawn + "</g>"


def _onto(path: Sequence[tuple[float, float]], source: Box, target: Box) -> list[tuple[float, float]]:
    """The path, made longer where it ends before a box: the row of a Choice may be higher than the Choice."""
    (x, y), (end_x, end_y) = path[0], path[-1]
    longer = list(path)
    if y > source.bottom + 1 and source.left <= x <= source.right:
        longer = [(x, source.bottom), (x, source.bottom), (x, y), *longer]
    if end_y < target.top - 1 and target.left <= end_x <= target.right:
        longer += [(end_x, end_y), (end_x, end_y), (end_x, target.top)]
    return longer


def _head(before: tuple[float, float], tip: tuple[float, float], kind: str) -> str:
    """An arrow head at `tip`, pointing away from `before`."""
    dx, dy = tip[0] - before[0], tip[1] - before[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    dx, dy = dx / length, dy / length
    corners = [tip] + [(tip[0] - 7 * dx + side * 3.6 * dy, tip[1] - 7 * dy - side * 3.6 * dx) for side in (1, -1)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon class="head {kind}" points="{points}"/>'.replace(' "', '"')


def _state(node: Node, page: Page, times: _Times | None) -> str:
    box = page.layout.boxes[node.name]
    marks = page.parts.marks.get(node.name, [])
    status = times.status.lower() if times else ""
    drawn = [f'<g class="state {node.type.lower()} {status}">'.replace(' "', '"')]
    drawn.append(f"<title>{escape(_node_tooltip(node, marks, times))}</title>")
    if node.type == "Choice":
        cut = 11
        corners = [
            (box.left, box.y), (box.left + cut, box.top), (box.right - cut, box.top),
            (box.right, box.y), (box.right - cut, box.bottom), (box.left + cut, box.bottom),
        ]  # fmt: skip
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        drawn.append(f'<polygon class="box" points="{points}"/>')
    else:
        radius = {"Task": 7, "Pass": 4}.get(node.type, box.height / 2)
        drawn.append(
            f'<rect class="box" x="{box.left:.1f}" y="{box.top:.1f}" width="{box.width:.1f}" '
            f'height="{box.height:.1f}" rx="{radius:g}"/>'
        )
    text_x = box.left + 17
    if times or node.type != "Task":
        icon = _ICONS.get(times.status if times else node.type, _ICONS["Task"])
        drawn.append(f'<path class="icon" transform="translate({box.left + 12:.1f} {box.y - 8:.1f})" d="{icon}"/>')
        text_x = box.left + 35
    drawn.append(f'<text x="{text_x:.1f}" y="{box.y + 4.4:.1f}">{escape(node.name)}</text>')
    if times and times.words:
        right = box.right - (26 if node.retries else 12)
        drawn.append(f'<text class="times" x="{right:.1f}" y="{box.y + 4:.1f}">{escape(times.words)}</text>')
    if node.retries:
        used = times is not None and times.attempts > 1
        at = f"{box.right - 20:.1f} {box.y - 6:.1f}"
        drawn.append(
            f'<path class="retry{" used" if used else ""}" transform="translate({at}) scale(.75)" d="{_RETRY_ICON}"/>'
        )
    if marks:
        drawn.append(f'<circle class="mark" cx="{box.left:.1f}" cy="{box.y:.1f}" r="4"/>')
        if node.name not in page.parts.line:
            drawn.append(f'<path class="mark" d="M{box.left - 4:.1f} {box.y:.1f}h-12"/>')
    return "".join([*drawn, "</g>"])


def _legend(page: Page, graph: Graph, times: Mapping[str, _Times]) -> list[str]:
    """What the signs mean: those that occur in this picture."""
    kinds = {arrow.edge.kind for arrow in page.layout.arrows}
    items = [('<path class="edge" d="M0 0H22"/>' + _head((10, 0), (24, 0), "edge"), "next", "edge")]
    if any(arrow.edge.kind == "catch" and arrow.edge.target not in page.parts.back for arrow in page.layout.arrows):
        items.append(('<path d="M0 0H22"/>' + _head((10, 0), (24, 0), ""), "a failure goes on this way", "catch"))
    if page.parts.gate:
        line = '<path class="back" d="M0 0H18"/><circle class="mark" cx="20" cy="0" r="4"/>'
        items.append((line, f"a failure leads to {page.parts.gate}", "back"))
    if any(node.retries for node in graph.nodes):
        icon = f'<path class="retry" transform="translate(4 -6) scale(.75)" d="{_RETRY_ICON}"/>'
        items.append((icon, "tried again when a service is busy", ""))
    if "choice" in kinds:
        items.append((_small_icon("Choice"), "a decision", ""))
    seen = {found.status for found in times.values()}
    words = {"SUCCEEDED": "succeeded", "CAUGHT": "failed and was caught", "FAILED": "failed", "RUNNING": "is running"}
    items += [(_small_icon(status), word, status.lower()) for status, word in words.items() if status in seen]
    columns = max(1, int((page.width - 2 * MARGIN) // LEGEND_COLUMN))
    top = page.height - LEGEND_ROW * -(-len(items) // columns) - 6
    drawn = ['<g class="legend">']
    for number, (sign, word, kind) in enumerate(items):
        x, y = MARGIN + number % columns * LEGEND_COLUMN, top + number // columns * LEGEND_ROW
        drawn.append(
            f'<g class="{kind}" transform="translate({x:.1f} {y:.1f})">{sign}'
            f'<text x="32" y="4">{escape(word)}</text></g>'
        )
    return [*drawn, "</g>"]


def _small_icon(name: str) -> str:
    return f'<path class="icon" transform="translate(4 -8)" d="{_ICONS[name]}"/>'


# --- HTML ------------------------------------------------------------------------------------------------------------


@cache
def environment() -> Environment:
    """The templates of the pages; everything that they are given is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    here = Path(__file__).parent
    made = Environment(
        loader=FileSystemLoader(here),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["duration"] = duration
    made.globals["page_style"] = (here / "page.css").read_text(encoding="utf-8")
    made.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return made


def to_html(graph: Graph, execution: Execution | None = None) -> str:
    """A page with the picture, every state below it, and the visits of an execution: no scripts, no other files."""
    visits = []
    failed = failed_state(graph, execution) if execution else None
    for visit in execution.visits if execution else ():
        assert execution is not None
        visits.append(
            {
                "after": duration((visit.entered - execution.started).total_seconds()),
                "name": visit.name,
                "status": "FAILED" if visit.name == failed and visit.status == "CAUGHT" else visit.status,
                "took": "" if visit.exited is None else duration(visit.seconds()),
                "attempts": visit.attempts if visit.attempts > 1 else 0,
                "words": why(visit),
            }
        )
    return (
        environment()
        .get_template("graph.html.j2")
        .render(
            title=f"Execution {execution.name}" if execution else "The state machine",
            execution=execution,
            picture=to_svg(graph, execution),
            everything=to_svg(graph, execution, every_state=True),
            state_count=len(graph.nodes),
            visits=visits,
        )
    )
