from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from colour_model import CLASSES, picture_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.errors import RequestError
from inference.service import Limits

from .conftest import Client

GATE = """
import pathlib, time
def wait(name):
    while not (pathlib.Path(__file__).parent / name).exists():
        time.sleep(0.005)
"""
ERRORS = {error.__name__ for error in RequestError.__subclasses__()} | {"InvalidImage", "ImageTooLarge"}


def check_prediction(response: Any, top_k: int = 3) -> None:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    predictions = response.json()["predictions"]
    assert len(predictions) == min(top_k, len(CLASSES))
    assert {key for entry in predictions for key in entry} == {"class", "probability"}


def check_error(response: Any, status: int, name: str) -> str:
    assert (response.status_code, response.json()["error"]) == (status, name), response.text
    assert set(response.json()) == {"error", "message"}
    return str(response.json()["message"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_picture_bytes_are_classified(kind: str, client: Client) -> None:
    response = client.invoke(picture_bytes("blue", kind=kind), f"image/{kind.lower()}")
    check_prediction(response)
    assert response.json()["predictions"][0]["class"] == "blue"


def test_json_with_base64_is_classified(client: Client) -> None:
    body = json.dumps({"image": base64.b64encode(picture_bytes("green")).decode(), "top_k": 1})
    response = client.invoke(body, "application/json")
    check_prediction(response, top_k=1)
    assert response.json()["predictions"][0]["class"] == "green"


def test_top_k_comes_through_the_custom_attributes_header(client: Client) -> None:
    check_prediction(client.invoke(**{"X-Amzn-SageMaker-Custom-Attributes": "top_k=2"}), top_k=2)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "name"),
    [
        (b"", "image/jpeg", 400, "InvalidImage"),
        (b"not a picture", "image/jpeg", 400, "InvalidImage"),
        (b"{}", "application/json", 400, "InvalidRequest"),
        (b"{", "application/json", 400, "InvalidJson"),
        (b'{"image": "!"}', "application/json", 400, "InvalidBase64"),
        (b'{"image": "", "top_k": 0}', "application/json", 400, "InvalidTopK"),
        (b"", "text/csv", 415, "UnsupportedContentType"),
        (b"", None, 415, "UnsupportedContentType"),
        (picture_bytes(0, (9000, 9000), mode="1"), "image/png", 413, "ImageTooLarge"),
        (bytes(6_291_457), "image/png", 413, "BodyTooLarge"),
    ],
)
def test_a_bad_request_gets_a_typed_error(
    body: bytes, content_type: str | None, status: int, name: str, client: Client
) -> None:
    check_error(client.invoke(body, content_type), status, name)


def test_a_body_without_a_length_is_cut_off_at_the_limit(client: Client) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while True:
            sent += 65536
            yield bytes(65536)

    check_error(client.invoke(endless(), "image/png"), 413, "BodyTooLarge")
    assert sent < 6_291_456 + 3 * 65536


def test_a_body_of_exactly_the_limit_is_read(client: Client) -> None:
    check_prediction(client.invoke(picture_bytes() + bytes(6_291_456 - len(picture_bytes()))))


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/", 404, "NotFound"),
        ("POST", "/models/x/invoke", 404, "NotFound"),
        ("GET", "/invocations", 405, "MethodNotAllowed"),
        ("POST", "/ping", 405, "MethodNotAllowed"),
    ],
)
def test_another_route_gets_a_typed_error(method: str, path: str, status: int, name: str, client: Client) -> None:
    check_error(client.run(client.http.request(method, path)), status, name)


def test_ping_is_503_until_the_model_is_warm(start: Callable[..., Client], make_model: Callable[..., Path]) -> None:
    slow = GATE + "from inference import handler\ndef model_fn(d):\n    wait('go')\n    return handler.model_fn(d)\n"
    model = make_model(program=slow)
    client = start(model, program="program.py")
    assert "loading" in check_error(client.ping(), 503, "NotReady")
    check_error(client.invoke(), 503, "NotReady")
    (model / "code" / "go").touch()
    client.wait_ready()
    check_prediction(client.invoke())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format_version": 2}, "another release"),
        ({"format": "other-classifier"}, "format must be"),
        ({"classes": ["one"]}, "model.onnx answers"),
    ],
)
def test_a_model_that_is_not_understood_is_never_ready_and_the_reason_is_logged(
    change: dict[str, Any],
    reason: str,
    start: Callable[..., Client],
    make_model: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make_model()
    document = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(document | change))
    client = start(model)
    assert reason in client.reason_for_not_ready()
    check_error(client.ping(), 503, "NotReady")
    check_error(client.invoke(), 503, "NotReady")
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("program", "source", "reason"),
    [
        ("missing.py", "", "no such file"),
        ("../../etc/passwd", "", "no such file"),
        ("program.py", "raise ValueError('broken on import')", "broken on import"),
        ("program.py", "def predict_fn(data, model):\n    raise ValueError('cannot predict')", "cannot predict"),
    ],
)
def test_a_users_program_that_fails_is_never_ready_and_says_why(
    program: str, source: str, reason: str, start: Callable[..., Client], make_model: Callable[..., Path]
) -> None:
    client = start(make_model(program=source), program=program)
    assert reason in client.reason_for_not_ready()
    check_error(client.ping(), 503, "NotReady")
    check_error(client.invoke(), 503, "NotReady")


def test_a_users_program_may_replace_any_of_the_four_functions(
    start: Callable[..., Client], make_model: Callable[..., Path]
) -> None:
    source = (
        "def output_fn(prediction, accept, context):\n"
        "    return prediction[0]['class'] + ' ' + context.custom_attributes\n"
    )
    client = start(make_model(program=source), program="program.py").wait_ready()
    response = client.invoke(accept="text/plain", **{"X-Amzn-SageMaker-Custom-Attributes": "trace=7"})
    assert (response.status_code, response.text) == (200, "red trace=7")
    assert response.headers["content-type"].startswith("text/plain")


def test_a_users_program_may_bring_its_own_model_and_input(start: Callable[..., Client], tmp_path: Path) -> None:
    source = (
        "def model_fn(model_dir): return 3\n"
        "def input_fn(body, content_type): return int(body)\n"
        "def predict_fn(data, model): return data * model\n"
        "def output_fn(prediction, accept): return str(prediction), 'text/plain'\n"
    )
    (tmp_path / "own" / "code").mkdir(parents=True)
    (tmp_path / "own" / "code" / "inference.py").write_text(source)
    client = start(tmp_path / "own", program="inference.py").wait_ready()
    assert client.invoke(b"14", "text/plain").text == "42"


def test_a_failing_handler_gives_500_and_keeps_its_reason_to_the_log(
    start: Callable[..., Client], make_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    source = (
        "from inference import handler\n"
        "def input_fn(body, content_type, context):\n"
        "    if content_type == 'text/secret': raise KeyError('s3cret')\n"
        "    return handler.input_fn(body, content_type, context)\n"
    )
    client = start(make_model(program=source), program="program.py").wait_ready()
    message = check_error(client.invoke(b"", "text/secret"), 500, "InternalError")
    assert "s3cret" not in message
    assert "s3cret" in caplog.text
    check_prediction(client.invoke())


SLOW = GATE + (
    "from inference import handler\n"
    "def input_fn(body, content_type, context):\n"
    "    if content_type == 'text/slow':\n"
    "        wait('go')\n"
    "        content_type = 'image/png'\n"
    "    return handler.input_fn(body, content_type, context)\n"
)


def test_a_full_queue_refuses_at_once_and_recovers(
    start: Callable[..., Client], make_model: Callable[..., Path]
) -> None:
    model = make_model(program=SLOW)
    client = start(model, program="program.py", limits=Limits(workers=1, queue_length=2)).wait_ready()

    async def overload() -> tuple[list[Any], Any]:
        def post() -> Any:
            return client.http.post("/invocations", content=picture_bytes(), headers={"content-type": "text/slow"})

        waiting = [asyncio.create_task(post()) for _ in range(3)]
        await asyncio.sleep(0.1)
        refused = await asyncio.wait_for(post(), timeout=2)
        assert not any(task.done() for task in waiting)
        (model / "code" / "go").touch()
        return list(await asyncio.gather(*waiting)), refused

    answered, refused = client.run(overload())
    check_error(refused, 503, "Overloaded")
    assert refused.headers["retry-after"] == "1"
    for response in answered:
        check_prediction(response)
    check_prediction(client.invoke())


def test_a_request_past_its_deadline_gets_503_but_keeps_its_place_until_its_thread_is_free(
    start: Callable[..., Client], make_model: Callable[..., Path]
) -> None:
    model = make_model(program=SLOW)
    limits = Limits(workers=1, queue_length=1, deadline_seconds=0.5)
    client = start(model, program="program.py", limits=limits).wait_ready()

    async def outlast() -> list[Any]:
        def post() -> Any:
            return client.http.post("/invocations", content=picture_bytes(), headers={"content-type": "text/slow"})

        # The second never starts, so its place is free again; the first still runs.
        responses = list(await asyncio.gather(post(), post()))
        return [*responses, *await asyncio.gather(post(), post())]

    *late, _ = responses = client.run(outlast())
    for response in late:
        check_error(response, 503, "DeadlineExceeded")
    check_error(responses[-1], 503, "Overloaded")
    (model / "code" / "go").touch()
    recovered = (client.invoke() for _ in range(100) if client.run(asyncio.sleep(0.02)) is None)
    check_prediction(next(response for response in recovered if response.status_code == 200))


def test_a_body_that_never_ends_in_time_gets_408(start: Callable[..., Client]) -> None:
    client = start(limits=Limits(workers=1, deadline_seconds=0.2)).wait_ready()

    async def slow() -> Any:
        yield b"\x89PNG"
        await asyncio.sleep(5)

    check_error(client.invoke(slow()), 408, "RequestTimeout")
    check_prediction(client.invoke())


HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, 90), st.binary(max_size=40)).map(
            lambda cut: picture_bytes()[: cut[0]] + cut[1] + picture_bytes()[cut[0] :]
        ),
        st.dictionaries(
            st.sampled_from(["image", "top_k", "url"]),
            st.one_of(
                st.none(),
                st.integers(),
                st.floats(),
                st.text(max_size=30),
                st.just(base64.b64encode(picture_bytes()).decode()),
            ),
        ).map(lambda document: json.dumps(document).encode()),
    ),
    content_type=st.one_of(st.none(), HEADER_TEXT, st.sampled_from(["image/png", "application/json", "IMAGE/PNG;x=1"])),
    attributes=st.one_of(HEADER_TEXT, st.integers().map(lambda n: f"top_k={n}")),
    accept=HEADER_TEXT,
)
def test_whatever_is_sent_gets_a_prediction_or_a_typed_error(
    client: Client, body: bytes, content_type: str | None, attributes: str, accept: str
) -> None:
    headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes, "accept": accept}
    response = client.invoke(body, content_type, **headers)
    if response.status_code == 200:
        assert response.json()["predictions"]
    else:
        assert 400 <= response.status_code < 500
        assert response.json()["error"] in ERRORS
        assert response.json()["message"]
