"""The state graph as a picture: DOT text, an SVG that needs nothing else, and an HTML page around it.

Graphviz decides where states and arrows lie; what they look like is decided here. The main line goes straight down. A
failure that leads to the state where all failures gather is a red mark on its state, and one dashed line collects
those marks: forty arrows would say the same and show nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from workflow.graph import Edge, Graph, Node

if TYPE_CHECKING:
    from jinja2 import Environment

    from workflow.executions import Execution, StateVisit

_HEIGHT = {"Task": 34.0, "Choice": 30.0, "Pass": 24.0}
_OTHER_HEIGHT = 28.0
_WIDTH, _WIDTH_WITH_TIMES = 226.0, 282.0
_ROW_GAP, _COLUMN_GAP, _MARGIN = 19.0, 26.0, 20.0
_STACK_GAP = 6.0
_LEGEND_COLUMN, _LEGEND_ROW, _LEGEND_ITEMS = 232.0, 22.0, 9
_MAX_LABEL = 34
_MAX_CAUSE = 500
_WORTH_SAYING_SECONDS = 0.05
_POINTS_PER_INCH = 72.0
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


@dataclass(frozen=True)
class _Box:
    """Where a state lies: its centre and size, in pixels from the upper left."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    def moved(self, x: float, y: float) -> _Box:
        return _Box(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class _Arrow:
    """A drawn transition: its SVG path, and where its label has its centre."""

    edge: Edge
    path: tuple[tuple[float, float], ...]
    label_at: tuple[float, float] | None = None

    def moved(self, x: float, y: float) -> _Arrow:
        label = self.label_at and (self.label_at[0] + x, self.label_at[1] + y)
        return _Arrow(self.edge, tuple((px + x, py + y) for px, py in self.path), label)


@dataclass(frozen=True)
class _Layout:
    boxes: dict[str, _Box]
    arrows: list[_Arrow]

    def moved(self, x: float, y: float) -> _Layout:
        return _Layout(
            {name: box.moved(x, y) for name, box in self.boxes.items()}, [arrow.moved(x, y) for arrow in self.arrows]
        )


@dataclass(frozen=True)
class _Parts:
    """The graph, taken apart for drawing.

    `line` is the main line, `asides` the states beside it that only name a failure (by the Choice that leads there),
    `back` the states of the way back, `marks` the transitions that are marks on their states, and `drawn` the rest.
    """

    line: tuple[str, ...]
    asides: dict[str, list[str]]
    back: tuple[str, ...]
    gate: str | None
    marks: dict[str, list[Edge]]
    drawn: list[Edge]


def _parts(graph: Graph) -> _Parts:
    line = graph.main_line()
    gate = graph.way_back()
    path = {node.name for node in graph.main_path().nodes}
    back = graph.after(gate) - path if gate else frozenset()
    types = {node.name: node.type for node in graph.nodes}
    asides: dict[str, list[str]] = {}
    if gate:
        for node in graph.nodes:
            targets = {edge.target for edge in graph.edges if edge.source == node.name}
            sources = [edge.source for edge in graph.edges if edge.target == node.name]
            owner = next((name for name in line if name in sources and types[name] == "Choice"), None)
            if owner and targets == {gate} and node.type == "Pass" and node.name not in back:
                asides.setdefault(owner, []).append(node.name)
    owners = {name: owner for owner, names in asides.items() for name in names}
    marks: dict[str, list[Edge]] = {}
    drawn = []
    for edge in graph.edges:
        foreign_aside = edge.target in owners and owners[edge.target] != edge.source
        if (edge.target == gate and edge.source not in back) or foreign_aside:
            marks.setdefault(edge.source, []).append(edge)
        else:
            drawn.append(edge)
    ordered_back = tuple(node.name for node in graph.nodes if node.name in back)
    return _Parts(line, asides, ordered_back, gate, marks, drawn)


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


def _size(node: Node, wide: bool) -> tuple[float, float]:
    height = _HEIGHT.get(node.type, _OTHER_HEIGHT)
    if node.type == "Pass" and not wide:
        return 44 + 6.4 * len(node.name), height
    return max(_WIDTH_WITH_TIMES if wide else _WIDTH, 54 + 7.2 * len(node.name) + (80 if wide else 0)), height


def _labelled(edge: Edge) -> bool:
    """Whether the label stands in the picture; what a Catch catches is a tooltip."""
    return bool(edge.label) and edge.kind != "catch"


def _short(label: str) -> str:
    """A rule without the places that its values come from, and not longer than a label may be."""
    words = re.sub(r"\b(?:\w+\.)+(?=\w)", "", re.sub(r"\.[SN]\b", "", label))
    return words if len(words) <= _MAX_LABEL else words[: _MAX_LABEL - 1].rstrip() + "…"


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
    parts, times = _parts(graph), _times(execution.visits if execution else ())
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
            look["label"] = _short(edge.label)
        if edge.kind == "catch" or edge.target in parts.back:
            look |= {"style": "dashed", "color": "#cf222e"}
        if (edge.source, edge.target) in on_line:
            look["weight"] = 100
        if id(edge) in bundled or _leads_back(edge, parts.line):
            look["constraint"] = "false"
        lines.append(f"    {_quoted(edge.source)} -> {_quoted(edge.target)} [{_attributes(**look)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _leads_back(edge: Edge, line: Sequence[str]) -> bool:
    places = {name: place for place, name in enumerate(line)}
    if edge.target not in places:
        return False
    return edge.source in places and places[edge.source] > places[edge.target]


# --- layout ----------------------------------------------------------------------------------------------------------


def _place(
    names: Sequence[str],
    edges: Sequence[Edge],
    sizes: Mapping[str, tuple[float, float]],
    line: Sequence[str],
    loose: frozenset[Edge] = frozenset(),
) -> _Layout:
    """Let Graphviz place boxes of these sizes; `line` goes straight down, `loose` edges pull nothing."""
    import pygraphviz  # type: ignore[import-untyped]

    identifiers = {name: f"n{number}" for number, name in enumerate(names)}
    on_line = set(pairwise(line))
    lines = [
        "digraph {",
        f'graph [ordering=out, nodesep="{_COLUMN_GAP / _POINTS_PER_INCH}", ranksep="{_ROW_GAP / _POINTS_PER_INCH}"];',
        'node [shape=box, fixedsize=true, label=""];',
        "edge [arrowhead=none];",
    ]
    for name, identifier in identifiers.items():
        width, height = sizes[name]
        group = ", group=main" if name in line else ""
        lines.append(f"{identifier} [width={width / _POINTS_PER_INCH}, height={height / _POINTS_PER_INCH}{group}];")
    # With `ordering=out` the first edge of a state is its leftmost: the main line stays at the left.
    ordered = sorted(range(len(edges)), key=lambda i: ((edges[i].source, edges[i].target) not in on_line, i))
    for number in ordered:
        edge = edges[number]
        look = [f"key=e{number}"]
        if (edge.source, edge.target) in on_line:
            look.append("weight=100")
        if edge in loose:
            look.append("constraint=false")
        if _labelled(edge) and edge not in loose:
            look.append(f"label={_blank(len(_short(edge.label)) * 6.2 + 8, 13)}")
        lines.append(f"{identifiers[edge.source]} -> {identifiers[edge.target]} [{', '.join(look)}];")
    drawn = pygraphviz.AGraph("\n".join([*lines, "}"]))
    drawn.layout(prog="dot")
    top = float(drawn.graph_attr["bb"].split(",")[3])
    boxes = {}
    for name, identifier in identifiers.items():
        x, y = (float(value) for value in drawn.get_node(identifier).attr["pos"].split(","))
        boxes[name] = _Box(x, top - y, *sizes[name])
    arrows = []
    for placed in drawn.edges(keys=True):
        edge = edges[int(placed[2].removeprefix("e"))]
        found = drawn.get_edge(*placed).attr
        points = [tuple(float(value) for value in point.split(",")) for point in found["pos"].split()]
        label = [float(value) for value in found["lp"].split(",")] if found["lp"] else None
        path = tuple((x, top - y) for x, y in points)
        arrows.append(
            (int(placed[2].removeprefix("e")), _Arrow(edge, path, (label[0], top - label[1]) if label else None))
        )
    return _Layout(boxes, [arrow for _, arrow in sorted(arrows, key=lambda item: item[0])])


def _blank(width: float, height: float) -> str:
    """A label of a fixed size, so that no font of this machine has a say in the layout."""
    size = f'FIXEDSIZE="TRUE" WIDTH="{round(width)}" HEIGHT="{round(height)}"'
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLPADDING="0" CELLSPACING="0" {size}><TR><TD></TD></TR></TABLE>>'


@dataclass(frozen=True)
class _Page:
    """Everything at its final place."""

    layout: _Layout
    parts: _Parts
    rail_x: float | None
    width: float
    height: float


def _page(graph: Graph, wide: bool) -> _Page:
    parts = _parts(graph)
    sizes = {node.name: _size(node, wide) for node in graph.nodes}
    beside = {name for names in parts.asides.values() for name in names}
    rows = dict(sizes)
    for owner, names in parts.asides.items():
        stack = sum(sizes[name][1] for name in names) + _STACK_GAP * (len(names) - 1)
        rows[owner] = (sizes[owner][0], max(sizes[owner][1], stack))
    main = [node.name for node in graph.nodes if node.name not in beside and node.name not in parts.back]
    edges = [edge for edge in parts.drawn if edge.source in main and edge.target in main]
    loose = frozenset(edge for edge in edges if _leads_back(edge, parts.line))
    placed = _place(main, edges, rows, parts.line, loose)
    boxes = {name: _Box(box.x, box.y, *sizes[name]) for name, box in placed.boxes.items()}
    left = min(box.left for box in boxes.values())
    arrows = placed.arrows
    if beside:
        edge_x = left - 34
        for owner, names in parts.asides.items():
            y = boxes[owner].y - (sum(sizes[name][1] for name in names) + _STACK_GAP * (len(names) - 1)) / 2
            for name in names:
                width, height = sizes[name]
                boxes[name] = _Box(edge_x - width / 2, y + height / 2, width, height)
                y += height + _STACK_GAP
        left = min(boxes[name].left for name in beside)
        for edge in parts.drawn:
            if edge.target in beside:
                start, end = boxes[edge.source], boxes[edge.target]
                arrows.append(_Arrow(edge, _sideways((start.left, start.y), (end.right, end.y))))
    rail_x = None
    if parts.gate:
        rail_x = left - 28
        stubs = [boxes[name].y for name in parts.marks if name in boxes and name in parts.line] + [
            boxes[name].y for name in beside
        ]
        back_edges = [edge for edge in parts.drawn if edge.source in parts.back and edge.target in parts.back]
        back_line = Graph(parts.gate, tuple(n for n in graph.nodes if n.name in parts.back), tuple(back_edges))
        ending = _to_an_end(back_line)
        turns = frozenset(edge for edge in back_edges if edge.target == parts.gate != edge.source)
        below = _mirrored(_place(parts.back, back_edges, sizes, ending, turns))
        gate = below.boxes[parts.gate]
        # However narrow the space beside the main line is, the way back ends beside it and not below it.
        reach = max(box.right for box in below.boxes.values()) - gate.x
        rail_x = min(rail_x, min(box.left for box in placed.boxes.values()) - reach - 30)
        below = below.moved(rail_x - gate.x, max(stubs, default=0) + 40 - gate.top)
        boxes |= below.boxes
        arrows += below.arrows
    everything = [(box.left, box.top, box.right, box.bottom) for box in boxes.values()]
    everything += [(x - 4, y - 4, x + 4, y + 4) for arrow in arrows for x, y in arrow.path]
    for arrow in arrows:
        if arrow.label_at:
            half = len(_short(arrow.edge.label)) * 2.9
            everything.append((arrow.label_at[0] - half, 1e9, arrow.label_at[0] + half, -1e9))
    x, y = min(item[0] for item in everything) - _MARGIN, min(item[1] for item in everything) - _MARGIN - 26
    width = max(item[2] for item in everything) + _MARGIN - x
    height = max(item[3] for item in everything) + _MARGIN - y
    layout = _Layout(boxes, arrows).moved(-x, -y)
    height += _LEGEND_ROW * -(-_LEGEND_ITEMS // max(1, int((width - 2 * _MARGIN) // _LEGEND_COLUMN))) + 8
    return _Page(layout, parts, None if rail_x is None else rail_x - x, width, height)


def _to_an_end(graph: Graph) -> tuple[str, ...]:
    """The shortest way from the start to a state that nothing follows."""
    ways: list[tuple[str, ...]] = [(graph.start_at,)]
    seen = {graph.start_at}
    for way in ways:
        targets = [edge.target for edge in graph.edges if edge.source == way[-1]]
        if not targets:
            return way
        ways += [(*way, target) for target in dict.fromkeys(targets) if target not in seen]
        seen |= set(targets)
    return (graph.start_at,)


def _mirrored(layout: _Layout) -> _Layout:
    return _Layout(
        {name: _Box(-box.x, box.y, box.width, box.height) for name, box in layout.boxes.items()},
        [
            _Arrow(
                arrow.edge,
                tuple((-x, y) for x, y in arrow.path),
                arrow.label_at and (-arrow.label_at[0], arrow.label_at[1]),
            )
            for arrow in layout.arrows
        ],
    )


def _sideways(start: tuple[float, float], end: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    middle = (start[0] + end[0]) / 2
    return (start, (middle, start[1]), (middle, end[1]), end)


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
    page = _page(graph, wide=execution is not None)
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


def _start(page: _Page, graph: Graph) -> list[str]:
    box = page.layout.boxes[graph.start_at]
    return [
        f'<circle class="start" cx="{box.x:.1f}" cy="{box.top - 22:.1f}" r="5"/>',
        f'<path class="edge{" " if not graph.edges else ""}" d="M{box.x:.1f} {box.top - 17:.1f}V{box.top - 5:.1f}"/>',
        _head((box.x, box.top - 12), (box.x, box.top), "edge"),
    ]


def _rail(page: _Page, taken: set[tuple[str, str]]) -> list[str]:
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


def _edge_class(edge: Edge, page: _Page, times: Mapping[str, _Times], taken: set[tuple[str, str]]) -> str:
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


def _arrow(arrow: _Arrow, page: _Page, times: Mapping[str, _Times], taken: set[tuple[str, str]]) -> str:
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
        drawn += f'<text class="rule" x="{x:.1f}" y="{y + 3.5:.1f}">{escape(_short(arrow.edge.label))}</text>'
    return drawn + "</g>"


def _onto(path: Sequence[tuple[float, float]], source: _Box, target: _Box) -> list[tuple[float, float]]:
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


def _state(node: Node, page: _Page, times: _Times | None) -> str:
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


def _legend(page: _Page, graph: Graph, times: Mapping[str, _Times]) -> list[str]:
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
    columns = max(1, int((page.width - 2 * _MARGIN) // _LEGEND_COLUMN))
    top = page.height - _LEGEND_ROW * -(-len(items) // columns) - 6
    drawn = ['<g class="legend">']
    for number, (sign, word, kind) in enumerate(items):
        x, y = _MARGIN + number % columns * _LEGEND_COLUMN, top + number // columns * _LEGEND_ROW
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
