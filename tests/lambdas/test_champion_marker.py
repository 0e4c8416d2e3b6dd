from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from lambdas.champion_marker.handler import handler


class CloudFormation:
    """Where the Lambda's answers go: a web server on this machine."""

    def __init__(self) -> None:
        answers: list[tuple[str | None, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answers.append((self.headers["Content-Type"], json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.answers = answers
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/answer?stack=1"


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    listener = CloudFormation()
    thread = Thread(target=listener.server.serve_forever)
    thread.start()
    yield listener
    listener.server.shutdown()
    thread.join()
    listener.server.server_close()


def a_request(cloudformation: CloudFormation, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "RequestType": kind,
        "ResponseURL": cloudformation.url,
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "ChampionMarker",
        "ResourceProperties": {"ServiceToken": "x", "Bucket": "artifacts"},
        **fields,
    }


@pytest.fixture
def s3(aws: Any) -> Any:
    """S3 with the artifact bucket."""
    client = aws("s3")
    client.create_bucket(Bucket="artifacts")
    return client


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_the_marker_is_put_and_cloudformation_is_told(
    s3: Any, cloudformation: CloudFormation, context: Any, kind: str
) -> None:
    handler(a_request(cloudformation, kind), context)
    marker = json.loads(s3.get_object(Bucket="artifacts", Key="champion/marker.json")["Body"].read())
    assert "champion" in marker["about"]
    [(content_type, answer)] = cloudformation.answers
    assert content_type == ""
    assert answer["Status"] == "SUCCESS"
    assert answer["PhysicalResourceId"] == "s3://artifacts/champion/marker.json"
    assert (answer["StackId"], answer["RequestId"], answer["LogicalResourceId"]) == (
        "stack",
        "request",
        "ChampionMarker",
    )


def test_delete_removes_nothing(s3: Any, cloudformation: CloudFormation, context: Any) -> None:
    for key in ("champion/marker.json", "champion/model.tar.gz"):
        s3.put_object(Bucket="artifacts", Key=key, Body=b"x")
    handler(a_request(cloudformation, "Delete", PhysicalResourceId="s3://artifacts/champion/marker.json"), context)
    assert s3.list_objects_v2(Bucket="artifacts")["KeyCount"] == 2
    assert cloudformation.answers[0][1]["Status"] == "SUCCESS"


@pytest.mark.parametrize("properties", [{}, {"Bucket": "no-such-bucket"}])
def test_a_failure_is_told_at_once_with_its_reason(
    s3: Any, cloudformation: CloudFormation, context: Any, properties: dict[str, str]
) -> None:
    handler(a_request(cloudformation, "Create", ResourceProperties=properties), context)
    [(_, answer)] = cloudformation.answers
    assert answer["Status"] == "FAILED"
    assert "Bucket" in answer["Reason"]
    assert context.log_group_name in answer["Reason"]
    assert answer["PhysicalResourceId"]
