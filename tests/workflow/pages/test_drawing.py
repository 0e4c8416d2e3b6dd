"""The drawn state graph: the same for the same input, complete, escaped, and the README's picture is current."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import report_account
from pygraphviz import AGraph
from report_account import DEFINITION, FAILURE, FakeAccount

from workflow import definition, executions
from workflow.config import Config
from workflow.graph import Graph
from workflow.pages import drawing, layout

ROOT = Path(__file__).parents[3]
PICTURE = ROOT / "docs/images/state-machine.svg"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script>&]]>'


@pytest.fixture(scope="module")
def whole() -> Graph:
    return Graph.from_definition(definition.build(Config()))


def small() -> Graph:
    return Graph.from_definition(DEFINITION)


def executed(**given: Any) -> executions.Execution:
    return executions.describe(FakeAccount(**given).account(), report_account.ARN)


def titles(svg: str, kind: str) -> list[str]:
    """The first lines of the tooltips of groups of one class (state, edge, back, catch)."""
    groups = ElementTree.fromstring(svg).iter(f"{SVG}g")
    found = (group.find(f"{SVG}title") for group in groups if kind in group.get("class", "").split())
    return [(title.text or "").splitlines()[0] for title in found if title is not None]


def boxes(svg: str) -> dict[str, tuple[float, float]]:
    """The upper left corner of each state that is drawn as a rectangle."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is not None and box is not None:
            name = (title.text or "").split(" (")[0]
            found[name] = (float(box.get("x", "nan")), float(box.get("y", "nan")))
    return found


def test_the_picture_in_the_readme_is_current(whole: Graph) -> None:
    # Names of states and transitions, not bytes: another release of Graphviz may put them elsewhere.
    drawn, stored = drawing.to_svg(whole), PICTURE.read_text(encoding="utf-8")
    command = "kelpie graph --format svg > docs/images/state-machine.svg"
    for kind in ("state", "edge", "back", "catch"):
        assert titles(stored, kind) == titles(drawn, kind), f"regenerate it: {command}"
    style = re.compile(r"<style>.*?</style>", re.DOTALL)
    assert style.findall(stored) == style.findall(drawn), f"regenerate it: {command}"


def test_the_same_input_gives_the_same_bytes(whole: Graph) -> None:
    assert drawing.to_svg(whole) == drawing.to_svg(whole)
    assert drawing.to_dot(whole) == drawing.to_dot(whole)
    assert drawing.to_html(small(), executed()) == drawing.to_html(small(), executed())


def test_every_state_and_every_transition_is_in_the_whole_picture(whole: Graph) -> None:
    svg = drawing.to_svg(whole, every_state=True)
    assert sorted(titles(svg, "state")) == sorted(f"{node.name} ({node.type})" for node in whole.nodes)
    drawn = {title for kind in ("edge", "back", "catch") for title in titles(svg, kind)}
    told = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if "state" in group.get("class", "").split():
            lines = (group.findtext(f"{SVG}title") or "").splitlines()
            told[lines[0].split(" (")[0]] = lines
    for edge in whole.edges:
        marked = any(line.endswith(f"→ {edge.target}") for line in told[edge.source])
        assert marked or f"{edge.source} → {edge.target}" in drawn, f"{edge.source} → {edge.target} is nowhere"


def test_the_main_line_goes_straight_down(whole: Graph) -> None:
    found = boxes(drawing.to_svg(whole))
    line = [name for name in whole.overview().main_line() if name in found]
    assert len(line) > 15
    assert [found[name][1] for name in line] == sorted(found[name][1] for name in line)
    assert max(found[name][0] for name in line) - min(found[name][0] for name in line) < 12


def test_no_state_covers_another(whole: Graph) -> None:
    for every_state in (False, True):
        placed = list(layout.lay_out(whole if every_state else whole.overview(), wide=False).layout.boxes.items())
        for number, (name, box) in enumerate(placed):
            for other, covered in placed[number + 1 :]:
                apart = (
                    box.right <= covered.left
                    or covered.right <= box.left
                    or box.bottom <= covered.top
                    or covered.bottom <= box.top
                )
                assert apart, f"{name} and {other}"


def test_the_ways_of_failures_are_one_line_and_not_an_arrow_each(whole: Graph) -> None:
    svg = drawing.to_svg(whole)
    gate = whole.way_back()
    catches = [edge for edge in whole.edges if edge.kind == "catch" and edge.target == gate]
    assert len(catches) > 10
    assert not [title for title in titles(svg, "catch") if title.endswith(f"→ {gate}")]
    marks = [group for group in ElementTree.fromstring(svg).iter(f"{SVG}circle") if group.get("class") == "mark"]
    overview = whole.overview()
    back = whole.after(gate or "")
    failing = {edge.source for edge in overview.edges if edge.target == gate and edge.source not in back}
    assert {node.name for node in overview.nodes if node.type == "Task"} - back >= failing
    assert len(failing) > 10
    assert len(marks) == len(failing) + 1  # one in the legend


def test_an_execution_shows_its_path_its_seconds_and_its_failure() -> None:
    execution = executed(steps=FAILURE, status="FAILED")
    svg = drawing.to_svg(small(), execution)
    assert titles(svg, "failed") == ["Train (Task)", "Failed (Fail)"]
    assert titles(svg, "succeeded") == ["Prepare (Pass)", "CleanUp (Task)"]
    assert "3.0 s" in svg
    assert "Refused: no pictures" in svg
    assert titles(svg, "taken") == ["Prepare → Train", "CleanUp → Failed"]
    assert "CAUGHT" not in drawing.to_html(small(), execution)


def test_visits_and_attempts_are_counted() -> None:
    again = (("Train", "Task", 2, "busy"), ("Good?", "Choice", 1, ""), ("Train", "Task", 3, ""))
    svg = drawing.to_svg(small(), executed(steps=again))
    assert "2× 5.0 s" in svg


def test_what_a_lambda_packs_around_its_cause_is_left_out() -> None:
    cause = '{"errorMessage": "no pictures", "errorType": "InvalidData", "stackTrace": ["File"]}'
    (visit,) = executed(steps=(("Train", "Task", 1, cause),)).visits
    assert drawing.why(visit) == "Refused: no pictures"


def test_names_and_comments_are_escaped() -> None:
    states = {name: dict(state) for name, state in DEFINITION["States"].items()}
    states["Prepare"] |= {"Next": HOSTILE, "Comment": HOSTILE}
    states[HOSTILE] = {"Type": "Task", "Resource": "arn:x", "Comment": HOSTILE, "Next": "Train"}
    graph = Graph.from_definition({**DEFINITION, "States": states})
    execution = executed(name=HOSTILE, status="FAILED", cause=HOSTILE, steps=((HOSTILE, "Task", 1, HOSTILE), *FAILURE))
    for text in (drawing.to_svg(graph, execution), drawing.to_html(graph, execution)):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    ElementTree.fromstring(drawing.to_svg(graph, execution))


def test_names_survive_the_way_through_dot() -> None:
    name = 'say "hi" & <b>'
    graph = Graph.from_definition({"StartAt": name, "States": {name: {"Type": "Succeed", "Comment": "a \\N"}}})
    text = drawing.to_dot(graph)
    assert AGraph(text).nodes() == [name]
    assert 'label="say \\"hi\\" & <b>"' in text
    assert 'a \\\\N"' in text  # Graphviz would put the name in place of a single backslash and N


def test_dot_text_is_what_graphviz_reads(whole: Graph) -> None:
    read = AGraph(drawing.to_dot(whole))
    assert len(read.nodes()) == len(whole.nodes)
    assert len(read.edges()) == len(whole.edges)


def test_the_svg_needs_nothing_else_and_knows_light_and_dark(whole: Graph) -> None:
    svg = drawing.to_svg(whole)
    assert "prefers-color-scheme:dark" in svg
    assert not re.search(r"<script|<image|<foreignObject|href|url\(|@import", svg)


def test_a_definition_without_a_way_back_is_drawn_too() -> None:
    graph = Graph.from_definition(
        {"StartAt": "A", "States": {"A": {"Type": "Task", "Next": "B"}, "B": {"Type": "Succeed"}}}
    )
    assert titles(drawing.to_svg(graph), "edge") == ["A → B"]


def test_graphviz_and_templates_are_imported_only_when_something_is_drawn() -> None:
    imports = "import sys, workflow.graph, workflow.pages.drawing"
    code = f"{imports}\nprint({{'pygraphviz', 'jinja2', 'boto3'}} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7450, "2 h 4 min")],
)
def test_durations_are_said_for_people(seconds: float, words: str) -> None:
    assert drawing.duration(seconds) == words
