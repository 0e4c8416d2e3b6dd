"""What a target gets of an event."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.local.input_transformer import InvalidInput, target_input

RULE = "arn:aws:events:us-east-1:123456789012:rule/new-data"
EVENT: dict[str, Any] = {
    "id": "1",
    "time": "2026-11-22T00:00:00Z",
    "source": "aws.s3",
    "detail": {"bucket": {"name": "dogs"}, "object": {"key": "a/_SUCCESS", "size": 3, "tags": ["x", "y"]}},
}
PATHS = {
    "bucket": "$.detail.bucket.name",
    "object": "$.detail.object",
    "size": "$.detail.object.size",
    "no": "$.nothing",
}


def transformed(template: str, event: dict[str, Any] = EVENT, paths: dict[str, str] = PATHS) -> Any:
    target = {"InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}
    return json.loads(target_input(target, event, RULE))


def test_without_anything_it_is_the_event() -> None:
    assert json.loads(target_input({}, EVENT, RULE)) == EVENT


def test_a_constant_and_a_part() -> None:
    assert target_input({"Input": '{"a": 1}'}, EVENT, RULE) == '{"a": 1}'
    assert target_input({"InputPath": "$.detail.bucket"}, EVENT, RULE) == '{"name": "dogs"}'


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{"uri": "s3://<bucket>/x"}', {"uri": "s3://dogs/x"}),
        ('{"b": <bucket>}', {"b": "dogs"}),
        ('{"s": <size>}', {"s": 3}),
        ('{"s": "<size>"}', {"s": "3"}),
        ('{"o": <object>}', {"o": EVENT["detail"]["object"]}),
        ('{"n": <no>, "m": "<no>"}', {"n": None, "m": ""}),
        ('"<bucket> has <size>"', "dogs has 3"),
        ('{"r": "<aws.events.rule-name>"}', {"r": "new-data"}),
        ('{"r": "<aws.events.rule-arn>"}', {"r": RULE}),
        ('{"e": <aws.events.event.json>}', {"e": EVENT}),
        ('{"e": <aws.events.event>}', {"e": {key: EVENT[key] for key in ("id", "time", "source")}}),
        ('{"kept": "<unknown> a < b"}', {"kept": "<unknown> a < b"}),
        (r'{"quote": "\"<bucket>\""}', {"quote": '"dogs"'}),
    ],
)
def test_a_template_is_filled(template: str, expected: Any) -> None:
    assert transformed(template) == expected


def test_what_gives_no_json_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not give JSON"):
        transformed("<bucket> is no value")


@given(st.text())
def test_no_key_of_an_object_can_break_out_of_its_place(key: str) -> None:
    event = {**EVENT, "detail": {"key": key}}
    template = '{"data": {"s3_uri": "s3://b/<key>"}, "value": <key>}'
    assert transformed(template, event, {"key": "$.detail.key"}) == {"data": {"s3_uri": f"s3://b/{key}"}, "value": key}
