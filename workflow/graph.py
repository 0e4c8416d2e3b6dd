"""The state graph: an Amazon States Language definition as nodes and edges, and as Mermaid text. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

EdgeKind = Literal["next", "choice", "default", "catch"]

_SHAPES = {
    "Choice": ("{", "}"),
    "Wait": ("([", "])"),
    "Succeed": ("([", "])"),
    "Fail": ("([", "])"),
    "Pass": ("[/", "/]"),
}
_WORK = frozenset({"Task", "Succeed", "Fail"})
_STATUS_STYLES = {
    "SUCCEEDED": "fill:#d6f5dd,stroke:#1a7f37,color:#0b3d1a",
    "FAILED": "fill:#ffd9d6,stroke:#b42318,color:#5c120c",
    "RUNNING": "fill:#dbeafe,stroke:#1d4ed8,color:#10296e",
    "CAUGHT": "fill:#fff1c7,stroke:#9a6700,color:#4d3300",
}


@dataclass(frozen=True)
class Node:
    """One state: its name, its ASL `Type` and its `Comment`; how often a Task is tried again, how long a Wait waits."""

    name: str
    type: str
    comment: str = ""
    retries: int = 0
    wait_seconds: int = 0


@dataclass(frozen=True)
class Edge:
    """A transition; `label` says when it is taken (a Choice's rule, the errors of a Catch)."""

    source: str
    target: str
    kind: EdgeKind
    label: str = ""


@dataclass(frozen=True)
class Graph:
    """States in the order of the definition, the transitions between them, and where an execution starts."""

    start_at: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def from_definition(cls, definition: Mapping[str, Any]) -> Graph:
        """Read an ASL definition (top level only: Kelpie's machine has no Map or Parallel state)."""
        states: Mapping[str, Mapping[str, Any]] = definition["States"]
        nodes = tuple(_node(name, state) for name, state in states.items())
        edges = tuple(edge for name, state in states.items() for edge in _edges(name, state))
        return cls(definition["StartAt"], nodes, edges)

    def main_path(self) -> Graph:
        """Only the states and transitions that lead from the start to a Succeed state without a Catch."""
        edges = tuple(edge for edge in self.edges if edge.kind != "catch")
        forward = _reachable({self.start_at}, [(edge.source, edge.target) for edge in edges])
        ends = {node.name for node in self.nodes if node.type == "Succeed"}
        kept = forward & _reachable(ends, [(edge.target, edge.source) for edge in edges])
        return Graph(
            self.start_at,
            tuple(node for node in self.nodes if node.name in kept),
            tuple(edge for edge in edges if edge.source in kept and edge.target in kept),
        )

    def main_line(self) -> tuple[str, ...]:
        """The states from the start to a Succeed state, one after the other, as an ordinary execution meets them.

        Of a Choice that is the first rule that leads on; a rule `not (...)` names an exception and comes last.
        """
        path = self.main_path()
        line = [self.start_at]
        while True:
            following = [edge for edge in path.edges if edge.source == line[-1] and edge.target not in line]
            if not following:
                return tuple(line)
            line.append(min(following, key=lambda edge: edge.label.startswith("not (")).target)

    def way_back(self) -> str | None:
        """The state off the main path that most Catches lead to, when at least two do: there all failures gather."""
        path = {node.name for node in self.main_path().nodes}
        caught = Counter(edge.target for edge in self.edges if edge.kind == "catch" and edge.target not in path)
        name, count = max(caught.items(), key=lambda item: item[1], default=("", 0))
        return name if count > 1 else None

    def after(self, name: str) -> frozenset[str]:
        """The state itself and everything that can follow it."""
        return frozenset(_reachable({name}, [(edge.source, edge.target) for edge in self.edges]))

    def work(self) -> Graph:
        """Only the Task states of the main path, and the ends; what lies between them becomes a plain arrow."""
        path = self.main_path()
        return path.only({node.name for node in path.nodes if node.type in {"Task", "Succeed"}})

    def overview(self, also: Iterable[str] = ()) -> Graph:
        """The work with its way back: the Tasks and ends of both, and the Catches between them.

        `also` names more states to show, for example those that an execution visited.
        """
        gate = self.way_back()
        path = self.main_path()
        on_path = {node.name for node in path.nodes}
        back = self.after(gate) - on_path if gate else frozenset()
        kept = {node.name for node in self.nodes if node.name in on_path | back and node.type in _WORK} | set(also)
        inner = (edge for edge in self.edges if edge.kind != "catch" and edge.source in back and edge.target in back)
        shown = Graph(self.start_at, self.nodes, (*path.edges, *inner)).only(kept)
        place = {name: number for number, name in enumerate(self.main_line())}
        forward = sorted(shown.edges, key=lambda edge: place.get(edge.target, len(place)))
        known = {(edge.source, edge.target) for edge in forward}
        direct = [
            edge
            for edge in self.edges
            if {edge.source, edge.target} <= kept
            and ((edge.source, edge.target) not in known or (edge.kind == "catch" and edge.source in on_path))
        ]
        known |= {(edge.source, edge.target) for edge in direct}
        failing = (edge for edge in self._failing(kept, gate) if edge.source not in back) if gate else ()
        return Graph(
            shown.start_at,
            shown.nodes,
            (*forward, *direct, *(edge for edge in failing if (edge.source, edge.target) not in known)),
        )

    def _failing(self, kept: set[str], gate: str) -> Iterator[Edge]:
        """An edge to the way back for each way there that leads through states that are not kept."""
        between = [edge for edge in self.edges if edge.source not in kept and edge.source != gate]
        leads = _reachable({gate}, [(edge.target, edge.source) for edge in between])
        for name in (node.name for node in self.nodes if node.name in kept):
            ways = [edge for edge in self.edges if edge.source == name and edge.target in leads - {gate} - kept]
            if ways:
                yield Edge(name, gate, ways[-1].kind, f"by way of {ways[-1].target}")

    def only(self, kept: set[str]) -> Graph:
        """Only these states; what lies between them becomes a plain arrow, and a loop an arrow called `wait`."""
        after = {node.name: [edge for edge in self.edges if edge.source == node.name] for node in self.nodes}

        def next_kept(name: str, seen: frozenset[str] = frozenset()) -> Iterator[Edge]:
            for edge in after[name]:
                if edge.target in kept:
                    yield edge
                elif edge.target not in seen:
                    yield from next_kept(edge.target, seen | {edge.target})

        def arrows(name: str) -> Iterator[Edge]:
            nearest: dict[str, Edge] = {}
            for edge in next_kept(name):
                if edge.target not in nearest or edge.source == name:
                    nearest[edge.target] = edge
            for target, edge in nearest.items():
                plain = Edge(name, target, "next", "wait" if target == name else "")
                yield edge if edge.source == name else plain

        start = self.start_at if self.start_at in kept else next(next_kept(self.start_at)).target
        return Graph(
            start,
            tuple(node for node in self.nodes if node.name in kept),
            tuple(edge for node in self.nodes if node.name in kept for edge in arrows(node.name)),
        )


def to_mermaid(graph: Graph, statuses: Mapping[str, str] | None = None) -> str:
    """Return a Mermaid flowchart; `statuses` (state name -> SUCCEEDED|FAILED|RUNNING|CAUGHT) colours the states.

    Catch transitions are dashed. Source: https://mermaid.js.org/syntax/flowchart.html (2026-11).
    """
    statuses = statuses or {}
    lines = ["flowchart TD", f"    start((start)) --> {_identifier(graph.start_at)}"]
    for node in graph.nodes:
        before, after = _SHAPES.get(node.type, ("[", "]"))
        lines.append(f'    {_identifier(node.name)}{before}"{node.name}"{after}')
    for edge in graph.edges:
        arrow = "-.->" if edge.kind == "catch" else "-->"
        label = f'|"{_escape(edge.label)}"|' if edge.label and edge.kind != "catch" else ""
        lines.append(f"    {_identifier(edge.source)} {arrow}{label} {_identifier(edge.target)}")
    for status, style in _STATUS_STYLES.items():
        names = [_identifier(node.name) for node in graph.nodes if statuses.get(node.name) == status]
        if names:
            lines.append(f"    classDef {status.lower()} {style}")
            lines.append(f"    class {','.join(names)} {status.lower()}")
    return "\n".join(lines) + "\n"


def _reachable(found: set[str], edges: list[tuple[str, str]]) -> set[str]:
    while more := {target for source, target in edges if source in found} - found:
        found = found | more
    return found


def _node(name: str, state: Mapping[str, Any]) -> Node:
    # Source: Amazon States Language specification, "Retrying after error": MaxAttempts is 3 when left out (2026-11).
    retries = max((retrier.get("MaxAttempts", 3) for retrier in state.get("Retry", ())), default=0)
    return Node(name, state["Type"], state.get("Comment", ""), retries, state.get("Seconds", 0))


def _edges(name: str, state: Mapping[str, Any]) -> Iterator[Edge]:
    if "Next" in state:
        yield Edge(name, state["Next"], "next")
    for rule in state.get("Choices", ()):
        yield Edge(name, rule["Next"], "choice", describe_rule(rule))
    if "Default" in state:
        yield Edge(name, state["Default"], "default", "otherwise")
    for catcher in state.get("Catch", ()):
        yield Edge(name, catcher["Next"], "catch", ", ".join(catcher["ErrorEquals"]))


def describe_rule(rule: Mapping[str, Any]) -> str:
    """A Choice rule in a few words, e.g. `endpoint.status = InService and not exists.flag`."""
    if "And" in rule:
        # `X is present and X = 1` guards the comparison; for a reader the comparison says it all.
        guarded = {part.get("Variable") for part in rule["And"] if "IsPresent" not in part}
        return " and ".join(describe_rule(part) for part in rule["And"] if not _only_guards(part, guarded))
    if "Or" in rule:
        subjects = {part.get("Variable") for part in rule["Or"]}
        if len(subjects) == 1 and all("StringEquals" in part for part in rule["Or"]):
            values = " or ".join(part["StringEquals"] for part in rule["Or"])
            return f"{rule['Or'][0]['Variable'].removeprefix('$.')} = {values}"
        return " or ".join(describe_rule(part) for part in rule["Or"])
    if "Not" in rule:
        return f"not ({describe_rule(rule['Not'])})"
    variable = rule["Variable"].removeprefix("$.")
    comparison = next(key for key in rule if key not in {"Variable", "Next", "Comment"})
    value = rule[comparison]
    if comparison.startswith("Is"):
        kind = comparison.removeprefix("Is").lower()
        return f"{variable} is {'' if value else 'not '}{kind}"
    for suffix, sign in (
        ("GreaterThanEquals", "≥"),
        ("LessThanEquals", "≤"),
        ("GreaterThan", ">"),
        ("LessThan", "<"),
        ("Equals", "="),
        ("Matches", "~"),
    ):
        if comparison.removesuffix("Path").endswith(suffix):
            return f"{variable} {sign} {str(value).removeprefix('$.')}"
    return f"{variable} {comparison} {value}"


def _only_guards(rule: Mapping[str, Any], guarded: set[str | None]) -> bool:
    return rule.get("IsPresent") is True and rule["Variable"] in guarded


def _identifier(name: str) -> str:
    # A Mermaid identifier has no `?`; `end` alone would close a block.
    return "state_" + re.sub(r"\W", "_", name)


def _escape(label: str) -> str:
    return label.replace('"', "#quot;")
