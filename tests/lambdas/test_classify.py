from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError
from botocore.response import StreamingBody
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from lambdas.classify import handler as classify
from lambdas.classify.handler import EndpointFailed, InvalidRequest, handler, parse_json

JPEG = b"\xff\xd8\xff\xe0 a picture"
PREDICTIONS = [{"class": "corgi", "probability": 0.9}, {"class": "pug", "probability": 0.1}]


def an_event(picture: bytes = JPEG, content_type: str = "image/jpeg", query: str = "", **fields: Any) -> dict[str, Any]:
    """A function URL event, as AWS sends it."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": query,
        "queryStringParameters": dict(part.split("=") for part in query.split("&")) if query else None,
        "headers": {"content-type": content_type},
        "requestContext": {
            "http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "1.2.3.4", "userAgent": "x"},
            "stage": "$default",
            "requestId": "1",
        },
        "body": base64.b64encode(picture).decode(),
        "isBase64Encoded": True,
        **fields,
    }


@pytest.fixture
def endpoint(aws: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stub of the endpoint: `expect(...)` says what is asked, and what is answered."""
    monkeypatch.setenv("ENDPOINT_NAME", "kelpie")
    runtime = aws("sagemaker-runtime")
    monkeypatch.setattr(classify, "runtime", lambda: runtime)
    stub = Stubber(runtime)

    def expect(body: bytes = JPEG, content_type: str = "image/jpeg", top_k: int = 5, answer: Any = None) -> None:
        content = json.dumps({"predictions": PREDICTIONS}).encode() if answer is None else answer
        stub.add_response(
            "invoke_endpoint",
            {"Body": StreamingBody(io.BytesIO(content), len(content)), "ContentType": "application/json"},
            {
                "EndpointName": "kelpie",
                "ContentType": content_type,
                "Accept": "application/json",
                "CustomAttributes": f"top_k={top_k}",
                "Body": body,
            },
        )

    expect.error = lambda code, **fields: stub.add_client_error(  # type: ignore[attr-defined]
        "invoke_endpoint", code, "what AWS says", 400, modeled_fields=fields
    )
    with stub:
        yield expect
    stub.assert_no_pending_responses()


def http(context: Any, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    answer = handler(event, context)
    return answer["statusCode"], json.loads(answer["body"])


def test_a_posted_picture_is_answered_with_its_classes(endpoint: Any, context: Any) -> None:
    endpoint()
    assert http(context, an_event()) == (200, {"predictions": PREDICTIONS})


def test_a_direct_call_is_answered_with_the_same(endpoint: Any, context: Any) -> None:
    endpoint(top_k=1)
    event = {"image_base64": base64.b64encode(JPEG).decode(), "top_k": 1}
    assert handler(event, context) == {"predictions": PREDICTIONS}


def test_json_can_be_posted_too(endpoint: Any, context: Any) -> None:
    endpoint(top_k=2)
    body = json.dumps({"image_base64": base64.b64encode(JPEG).decode(), "top_k": 2})
    event = an_event(content_type="application/json; charset=utf-8", body=body, isBase64Encoded=False)
    assert http(context, event)[0] == 200


@pytest.mark.parametrize(
    ("picture", "content_type"),
    [(b"\x89PNG\r\n\x1a\n...", "image/png"), (b"RIFF\x10\x00\x00\x00WEBP...", "image/webp"), (JPEG, "image/jpeg")],
)
def test_the_content_type_is_what_the_picture_is_and_not_what_the_caller_says(
    endpoint: Any, context: Any, picture: bytes, content_type: str
) -> None:
    endpoint(body=picture, content_type=content_type)
    assert http(context, an_event(picture, "text/html"))[0] == 200


def test_top_k_may_be_asked_for_in_the_address(endpoint: Any, context: Any) -> None:
    endpoint(top_k=3)
    assert http(context, an_event(query="top_k=3"))[0] == 200


@pytest.mark.parametrize(
    ("event", "status", "message"),
    [
        (an_event(b"<html>"), 415, "expected a JPEG, PNG or WebP"),
        (an_event(b""), 415, "expected a JPEG, PNG or WebP"),
        (an_event(JPEG + bytes(classify.MAX_IMAGE_BYTES)), 413, "at most 4,500,000"),
        (an_event(query="top_k=0"), 400, "top_k '0'"),
        (an_event(query="top_k=many"), 400, "top_k 'many'"),
        (an_event(query="top_k=" + "9" * 5000), 400, "top_k"),
        (an_event(query="top_k=١"), 400, "top_k"),
        (an_event(body="!!!"), 400, "base64"),
        (an_event(b"{", "application/json"), 400, "it says that it is JSON"),
        (an_event(b"\xff\xfe", "application/json"), 400, "it says that it is JSON"),
        (an_event(b"[" * 100_000, "application/json"), 400, "it says that it is JSON"),
        (an_event(b"[]", "application/json"), 400, "expected an object"),
        (an_event(b'{"image_url": "http://169.254.169.254/"}', "application/json"), 400, "never fetched from a URL"),
    ],
)
def test_a_bad_request_is_answered_with_what_is_expected(
    endpoint: Any, context: Any, event: dict[str, Any], status: int, message: str
) -> None:
    answered, body = http(context, event)
    assert answered == status
    assert message in body["message"]


def test_other_paths_and_methods_are_not_found(endpoint: Any, context: Any) -> None:
    event = an_event()
    event["requestContext"]["http"]["method"] = "DELETE"
    assert http(context, event)[0] in (404, 405)
    assert http(context, an_event(rawPath="/admin"))[0] == 404


@pytest.mark.parametrize(
    ("code", "fields", "status"),
    [
        ("ModelError", {"OriginalStatusCode": 400, "OriginalMessage": '{"error": "X", "message": "damaged"}'}, 400),
        ("ModelError", {"OriginalStatusCode": 413, "OriginalMessage": "too many pixels"}, 413),
        ("ModelError", {"OriginalStatusCode": 500, "OriginalMessage": "secret traceback"}, 502),
        ("ModelError", {"OriginalStatusCode": 503, "OriginalMessage": "queue full"}, 503),
        ("ServiceUnavailable", {}, 503),
        ("ThrottlingException", {}, 429),
        ("ValidationError", {}, 503),
        ("AccessDeniedException", {}, 502),
    ],
)
def test_an_error_of_the_endpoint_has_the_status_of_whose_fault_it_is(
    endpoint: Any, context: Any, code: str, fields: dict[str, Any], status: int
) -> None:
    endpoint.error(code, **fields)
    answer = handler(an_event(), context)
    assert answer["statusCode"] == status
    assert ("Retry-After" in str(answer)) == (status in (429, 503))
    assert "secret" not in answer["body"]
    if status in (400, 413):
        assert ("damaged" in answer["body"]) or ("too many pixels" in answer["body"])


def test_an_endpoint_that_does_not_answer_is_a_timeout(
    endpoint: Any, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        def invoke_endpoint(self, **request: Any) -> Any:
            raise ConnectTimeoutError(endpoint_url="https://runtime")

    monkeypatch.setattr(classify, "runtime", Slow)
    assert http(context, an_event())[0] == 504


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"predictions": 3}', b'{"predictions": [{"class": "a"}]}'])
def test_an_answer_of_another_form_is_a_bad_gateway(endpoint: Any, context: Any, answer: bytes) -> None:
    endpoint(answer=answer)
    assert http(context, an_event())[0] == 502


def test_a_direct_call_gets_typed_errors(endpoint: Any, context: Any) -> None:
    with pytest.raises(InvalidRequest, match="image_base64"):
        handler({}, context)
    endpoint.error("ModelError", OriginalStatusCode=500, OriginalMessage="x")
    with pytest.raises(EndpointFailed, match="kelpie"):
        handler({"image_base64": base64.b64encode(JPEG).decode()}, context)


@given(
    st.dictionaries(
        st.sampled_from(["image_base64", "top_k", "url"]),
        st.none() | st.integers() | st.floats() | st.text(max_size=8) | st.just(base64.b64encode(JPEG).decode()),
    )
    | st.lists(st.integers())
    | st.text()
    | st.none()
)
def test_any_json_is_a_picture_or_an_invalid_request(request: Any) -> None:
    try:
        image, top_k = parse_json(request)
    except InvalidRequest:
        return
    assert isinstance(image, bytes)
    assert 1 <= top_k <= 1000


@given(st.text(max_size=40), st.booleans(), st.text(max_size=20), st.text(max_size=6))
def test_any_http_body_is_answered(body: str, is_base64: bool, content_type: str, top_k: str) -> None:
    class NoContext:
        function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "x"

    event = an_event(content_type=content_type, body=body, isBase64Encoded=is_base64)
    event["queryStringParameters"] = {"top_k": top_k}
    assert handler(event, NoContext())["statusCode"] in (400, 415)  # type: ignore[arg-type]
