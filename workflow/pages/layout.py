"""Where the states and arrows of a graph lie: Graphviz places them, and what is peculiar to this picture is added here.

The main line goes straight down. A failure that leads to the state where all failures gather is a mark on its state,
and one line collects those marks: forty arrows would say the same and show nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from workflow.graph import Edge, Graph, Node

_HEIGHT = {"Task": 34.0, "Choice": 30.0, "Pass": 24.0}
_OTHER_HEIGHT = 28.0
_WIDTH, _WIDTH_WITH_TIMES = 226.0, 282.0
_ROW_GAP, _COLUMN_GAP, MARGIN = 19.0, 26.0, 20.0
_STACK_GAP = 6.0
LEGEND_COLUMN, LEGEND_ROW, _LEGEND_ITEMS = 232.0, 22.0, 9
_MAX_LABEL = 34
_POINTS_PER_INCH = 72.0


@dataclass(frozen=True)
class Box:
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

    def moved(self, x: float, y: float) -> Box:
        return Box(self.x + x, self.y + y, self.width, self.height)


@dataclass(frozen=True)
class Arrow:
    """A drawn transition: its SVG path, and where its label has its centre."""

    edge: Edge
    path: tuple[tuple[float, float], ...]
    label_at: tuple[float, float] | None = None

    def moved(self, x: float, y: float) -> Arrow:
        label = self.label_at and (self.label_at[0] + x, self.label_at[1] + y)
        return Arrow(self.edge, tuple((px + x, py + y) for px, py in self.path), label)


@dataclass(frozen=True)
class Layout:
    boxes: dict[str, Box]
    arrows: list[Arrow]

    def moved(self, x: float, y: float) -> Layout:
        return Layout(
            {name: box.moved(x, y) for name, box in self.boxes.items()}, [arrow.moved(x, y) for arrow in self.arrows]
        )


@dataclass(frozen=True)
class Parts:
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


def take_apart(graph: Graph) -> Parts:
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
    return Parts(line, asides, ordered_back, gate, marks, drawn)


def _size(node: Node, wide: bool) -> tuple[float, float]:
    height = _HEIGHT.get(node.type, _OTHER_HEIGHT)
    if node.type == "Pass" and not wide:
        return 44 + 6.4 * len(node.name), height
    return max(_WIDTH_WITH_TIMES if wide else _WIDTH, 54 + 7.2 * len(node.name) + (80 if wide else 0)), height


def labelled(edge: Edge) -> bool:
    """Whether the label stands in the picture; what a Catch catches is a tooltip."""
    return bool(edge.label) and edge.kind != "catch"


def short_label(label: str) -> str:
    """A rule without the places that its values come from, and not longer than a label may be."""
    words = re.sub(r"\b(?:\w+\.)+(?=\w)", "", re.sub(r"\.[SN]\b", "", label))
    return words if len(words) <= _MAX_LABEL else words[: _MAX_LABEL - 1].rstrip() + "…"


def leads_back(edge: Edge, line: Sequence[str]) -> bool:
    places = {name: place for place, name in enumerate(line)}
    if edge.target not in places:
        return False
    return edge.source in places and places[edge.source] > places[edge.target]


def _place(
    names: Sequence[str],
    edges: Sequence[Edge],
    sizes: Mapping[str, tuple[float, float]],
    line: Sequence[str],
    loose: frozenset[Edge] = frozenset(),
) -> Layout:
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
        if labelled(edge) and edge not in loose:
            look.append(f"label={_blank(len(short_label(edge.label)) * 6.2 + 8, 13)}")
        lines.append(f"{identifiers[edge.source]} -> {identifiers[edge.target]} [{', '.join(look)}];")
    drawn = pygraphviz.AGraph("\n".join([*lines, "}"]))
    drawn.layout(prog="dot")
    top = float(drawn.graph_attr["bb"].split(",")[3])
    boxes = {}
    for name, identifier in identifiers.items():
        x, y = (float(value) for value in drawn.get_node(identifier).attr["pos"].split(","))
        boxes[name] = Box(x, top - y, *sizes[name])
    arrows = []
    for placed in drawn.edges(keys=True):
        edge = edges[int(placed[2].removeprefix("e"))]
        found = drawn.get_edge(*placed).attr
        points = [tuple(float(value) for value in point.split(",")) for point in found["pos"].split()]
        label = [float(value) for value in found["lp"].split(",")] if found["lp"] else None
        path = tuple((x, top - y) for x, y in points)
        arrows.append(
            (int(placed[2].removeprefix("e")), Arrow(edge, path, (label[0], top - label[1]) if label else None))
        )
    return Layout(boxes, [arrow for _, arrow in sorted(arrows, key=lambda item: item[0])])


def _blank(width: float, height: float) -> str:
    """A label of a fixed size, so that no font of this machine has a say in the layout."""
    size = f'FIXEDSIZE="TRUE" WIDTH="{round(width)}" HEIGHT="{round(height)}"'
    return f'<<TABLE BORDER="0" CELLBORDER="0" CELLPADDING="0" CELLSPACING="0" {size}><TR><TD></TD></TR></TABLE>>'


@dataclass(frozen=True)
class Page:
    """Everything at its final place."""

    layout: Layout
    parts: Parts
    rail_x: float | None
    width: float
    height: float


def lay_out(graph: Graph, wide: bool) -> Page:
    parts = take_apart(graph)
    sizes = {node.name: _size(node, wide) for node in graph.nodes}
    beside = {name for names in parts.asides.values() for name in names}
    rows = dict(sizes)
    for owner, names in parts.asides.items():
        stack = sum(sizes[name][1] for name in names) + _STACK_GAP * (len(names) - 1)
        rows[owner] = (sizes[owner][0], max(sizes[owner][1], stack))
    main = [node.name for node in graph.nodes if node.name not in beside and node.name not in parts.back]
    edges = [edge for edge in parts.drawn if edge.source in main and edge.target in main]
    loose = frozenset(edge for edge in edges if leads_back(edge, parts.line))
    placed = _place(main, edges, rows, parts.line, loose)
    boxes = {name: Box(box.x, box.y, *sizes[name]) for name, box in placed.boxes.items()}
    left = min(box.left for box in boxes.values())
    arrows = placed.arrows
    if beside:
        edge_x = left - 34
        for owner, names in parts.asides.items():
            y = boxes[owner].y - (sum(sizes[name][1] for name in names) + _STACK_GAP * (len(names) - 1)) / 2
            for name in names:
                width, height = sizes[name]
                boxes[name] = Box(edge_x - width / 2, y + height / 2, width, height)
                y += height + _STACK_GAP
        left = min(boxes[name].left for name in beside)
        for edge in parts.drawn:
            if edge.target in beside:
                start, end = boxes[edge.source], boxes[edge.target]
                arrows.append(Arrow(edge, _sideways((start.left, start.y), (end.right, end.y))))
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
            half = len(short_label(arrow.edge.label)) * 2.9
            everything.append((arrow.label_at[0] - half, 1e9, arrow.label_at[0] + half, -1e9))
    x, y = min(item[0] for item in everything) - MARGIN, min(item[1] for item in everything) - MARGIN - 26
    width = max(item[2] for item in everything) + MARGIN - x
    height = max(item[3] for item in everything) + MARGIN - y
    layout = Layout(boxes, arrows).moved(-x, -y)
    height += LEGEND_ROW * -(-_LEGEND_ITEMS // max(1, int((width - 2 * MARGIN) // LEGEND_COLUMN))) + 8
    return Page(layout, parts, None if rail_x is None else rail_x - x, width, height)


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


def _mirrored(layout: Layout) -> Layout:
    return Layout(
        {name: Box(-box.x, box.y, box.width, box.height) for name, box in layout.boxes.items()},
        [
            Arrow(
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
