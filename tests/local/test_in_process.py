"""Requests of the server to itself: what a client gets is what it would get over a socket."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from workflow.local import in_process, signatures

URL = "http://127.0.0.1:9"
"""Nobody listens at the port of `discard`."""


class Application:
    """Answers with what it is told to, and keeps what it was asked."""

    def __init__(self, status: str = "200 OK", content: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.status, self.content, self.headers = status, content, headers or {}
        self.asked: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.bodies.append(signatures.body_of(environ))
        self.asked.append(environ)
        start_response(self.status, list(self.headers.items()))
        return [self.content[:1], self.content[1:]]


def client(service: str, application: Any) -> Any:
    made = boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=URL,
        aws_access_key_id="AKIAAAAAAAAAAAAAAAAA",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )
    in_process.connect(made, SimpleNamespace(application=application))  # type: ignore[arg-type]
    return made


def test_an_answer_comes_without_a_socket() -> None:
    application = Application(content=b'{"executionArn": "arn", "startDate": 1.0}')
    answer = client("stepfunctions", application).start_execution(stateMachineArn="m", input='{"breed": "Wäller"}')
    assert answer["executionArn"] == "arn"
    [asked] = application.asked
    assert asked["REQUEST_METHOD"] == "POST"
    assert asked["HTTP_X_AMZ_TARGET"] == "AWSStepFunctions.StartExecution"
    assert asked["HTTP_HOST"] == "127.0.0.1:9"
    assert json.loads(application.bodies[0]) == {"stateMachineArn": "m", "input": '{"breed": "Wäller"}'}


@pytest.mark.parametrize("key", ["a/b c/ä+%.jpg", "plain"])
def test_the_application_can_verify_the_signature(key: str) -> None:
    application = Application(content=b"the object", headers={"Content-Length": "10", "ETag": '"e"'})
    found = client("s3", application).get_object(Bucket="b", Key=key)
    assert found["Body"].read() == b"the object"
    assert found["ETag"] == '"e"'
    environ = application.asked[0]
    signature = signatures.read(environ)
    assert signature is not None
    signatures.verify(signature, "secret", environ)
    assert environ["PATH_INFO"].encode("latin-1").decode() == f"/b/{key}"


def test_an_error_of_the_service_is_the_clients_error() -> None:
    body = b'{"__type": "ThrottlingException", "message": "slow down"}'
    application = Application("400 BAD REQUEST", body, {"Content-Type": "application/x-amz-json-1.0"})
    with pytest.raises(ClientError, match="slow down"):
        client("dynamodb", application).list_tables()


def test_an_application_that_fails_is_an_internal_server_error() -> None:
    def broken(*_: Any) -> list[bytes]:
        raise ZeroDivisionError("inside")

    with pytest.raises(ClientError) as raised:
        client("dynamodb", broken).list_tables()
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


def test_without_an_application_or_with_a_stream_it_is_sent() -> None:
    with pytest.raises(EndpointConnectionError):
        client("dynamodb", None).list_tables()
    application = Application()
    with pytest.raises(EndpointConnectionError):
        client("s3", application).put_object(Bucket="b", Key="k", Body=io.BytesIO(b"a stream"))
    assert application.asked == []
