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


def test_the_main_line_follows_the_first_rule_that_is_no_exception() -> None:
    states = {
        "Back?": {
            "Type": "Choice",
            "Choices": [{"Not": {"Variable": "$.version", "StringEquals": ""}, "Next": "BringBack"}],
            "Default": "Spot?",
        },
        "BringBack": {"Type": "Task", "Resource": "arn:x", "Next": "Done"},
        "Spot?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.spot", "BooleanEquals": True, "Next": "Train"}],
            "Default": "TrainOnDemand",
        },
        "Train": {"Type": "Task", "Resource": "arn:x", "Next": "Done"},
        "TrainOnDemand": {"Type": "Task", "Resource": "arn:x", "Next": "Done"},
        "Done": {"Type": "Succeed"},
    }
    graph = Graph.from_definition({"StartAt": "Back?", "States": states})
    assert graph.main_line() == ("Back?", "Spot?", "Train", "Done")


RETURNING: dict[str, Any] = {
    "StartAt": "Train",
    "States": {
        "Train": {
            "Type": "Task",
            "Resource": "arn:train",
            "Retry": [{"ErrorEquals": ["Busy"]}, {"ErrorEquals": ["Slow"], "MaxAttempts": 5}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "CleanUp"}],
            "Next": "Good?",
        },
        "Good?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.good", "BooleanEquals": True, "Next": "Deploy"}],
            "Default": "NotGood",
        },
        "NotGood": {"Type": "Pass", "Next": "CleanUp"},
        "Deploy": {
            "Type": "Task",
            "Resource": "arn:deploy",
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "CleanUp"}],
            "Next": "Done",
        },
        "Done": {"Type": "Succeed"},
        "CleanUp": {"Type": "Task", "Resource": "arn:clean", "Next": "Clean?"},
        "Clean?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.clean", "BooleanEquals": True, "Next": "Failed"}],
            "Default": "Pause",
        },
        "Pause": {"Type": "Wait", "Seconds": 30, "Next": "CleanUp"},
        "Failed": {"Type": "Fail"},
    },
}


def test_failures_gather_where_most_catches_lead() -> None:
    graph = Graph.from_definition(RETURNING)
    assert graph.way_back() == "CleanUp"
    assert graph.after("CleanUp") == {"CleanUp", "Clean?", "Pause", "Failed"}
    assert Graph.from_definition(DEFINITION).way_back() is None  # a single Catch gathers nothing


def test_the_overview_has_the_work_its_way_back_and_what_is_asked_for() -> None:
    graph = Graph.from_definition(RETURNING)
    overview = graph.overview()
    assert [node.name for node in overview.nodes] == ["Train", "Deploy", "Done", "CleanUp", "Failed"]
    assert {(edge.source, edge.target, edge.kind) for edge in overview.edges} == {
        ("Train", "Deploy", "next"),
        ("Deploy", "Done", "next"),
        ("CleanUp", "CleanUp", "next"),
        ("CleanUp", "Failed", "next"),
        ("Train", "CleanUp", "catch"),
        ("Deploy", "CleanUp", "catch"),
    }
    states = {name: dict(state) for name, state in RETURNING["States"].items()}
    states["Train"]["Catch"] = [{"ErrorEquals": ["States.ALL"], "Next": "NotGood"}]
    states["Other"] = {**states["Deploy"], "Next": "Done"}
    states["Deploy"]["Next"] = "Other"
    roundabout = Graph.from_definition({**RETURNING, "States": states}).overview()
    assert Edge("Train", "CleanUp", "catch", "by way of NotGood") in roundabout.edges
    visited = graph.overview(["Good?", "NotGood"])
    assert Edge("Good?", "NotGood", "default", "otherwise") in visited.edges
    assert Edge("NotGood", "CleanUp", "next") in visited.edges


def test_retries_and_waits_are_read() -> None:
    nodes = {node.name: node for node in Graph.from_definition(RETURNING).nodes}
    assert (nodes["Train"].retries, nodes["Deploy"].retries) == (5, 0)
    assert nodes["Pause"].wait_seconds == 30


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
