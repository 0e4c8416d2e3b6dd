"""The state graph: nodes, edges and Mermaid text of a definition."""

from typing import Any

import pytest

from workflow.graph import Edge, Graph, describe_rule, to_mermaid

DEFINITION: dict[str, Any] = {
    "StartAt": "Train",
    "States": {
        "Train": {
            "Type": "Task",
            "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Failed"}],
            "Next": "Good?",
        },
        "Good?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.gate.passed", "BooleanEquals": True, "Next": "Done"}],
            "Default": "Failed",
        },
        "Done": {"Type": "Succeed"},
        "Failed": {"Type": "Fail"},
    },
}


def test_every_transition_becomes_an_edge_of_its_kind() -> None:
    graph = Graph.from_definition(DEFINITION)
    assert graph.start_at == "Train"
    assert [node.name for node in graph.nodes] == ["Train", "Good?", "Done", "Failed"]
    assert set(graph.edges) == {
        Edge("Train", "Good?", "next"),
        Edge("Train", "Failed", "catch", "States.ALL"),
        Edge("Good?", "Done", "choice", "gate.passed = True"),
        Edge("Good?", "Failed", "default", "otherwise"),
    }


def test_the_main_path_leaves_out_catches_and_states_that_cannot_succeed() -> None:
    main_path = Graph.from_definition(DEFINITION).main_path()
    assert [node.name for node in main_path.nodes] == ["Train", "Good?", "Done"]
    assert [edge.kind for edge in main_path.edges] == ["next", "choice"]


def test_the_work_leaves_out_what_only_decides_or_waits() -> None:
    states = dict(DEFINITION["States"])
    states["Done"] = {"Type": "Wait", "Seconds": 1, "Next": "Look"}
    states["Look"] = {"Type": "Task", "Resource": "arn:look", "Next": "Ready?"}
    states["Ready?"] = {
        "Type": "Choice",
        "Choices": [{"Variable": "$.ready", "BooleanEquals": True, "Next": "End"}],
        "Default": "Done",
    }
    states["End"] = {"Type": "Succeed"}
    work = Graph.from_definition({**DEFINITION, "States": states}).work()
    assert [node.name for node in work.nodes] == ["Train", "Look", "End"]
    assert set(work.edges) == {
        Edge("Train", "Look", "next"),
        Edge("Look", "Look", "next", "wait"),
        Edge("Look", "End", "next"),
    }


def test_mermaid_draws_catches_dashed_and_colours_states_by_status() -> None:
    text = to_mermaid(Graph.from_definition(DEFINITION), {"Train": "FAILED", "Failed": "FAILED"})
    assert "state_Train -.-> state_Failed" in text
    assert 'state_Good_ -->|"gate.passed = True"| state_Done' in text
    assert "class state_Train,state_Failed failed" in text
    assert "succeeded" not in text


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"Variable": "$.a.b", "StringEquals": "x"}, "a.b = x"),
        ({"Variable": "$.a", "StringEqualsPath": "$.b"}, "a = b"),
        ({"Variable": "$.n", "NumericGreaterThanEquals": 3}, "n ≥ 3"),
        ({"Variable": "$.n", "NumericLessThan": 3}, "n < 3"),
        ({"Variable": "$.x", "IsPresent": False}, "x is not present"),
        ({"Variable": "$.c", "StringMatches": "No*"}, "c ~ No*"),
        ({"Not": {"Variable": "$.c", "BooleanEquals": True}}, "not (c = True)"),
        (
            {"And": [{"Variable": "$.a", "IsPresent": True}, {"Variable": "$.a", "NumericEquals": 1}]},
            "a = 1",
        ),
        (
            {"And": [{"Variable": "$.a", "IsPresent": True}, {"Variable": "$.b", "NumericEquals": 1}]},
            "a is present and b = 1",
        ),
        ({"Or": [{"Variable": "$.a", "StringEquals": "x"}, {"Variable": "$.a", "StringEquals": "y"}]}, "a = x or y"),
    ],
)
def test_a_choice_rule_is_described_in_words(rule: dict[str, Any], words: str) -> None:
    assert describe_rule({**rule, "Next": "Anywhere"}) == words
