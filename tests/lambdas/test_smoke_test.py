from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from lambdas.smoke_test import handler as smoke_test
from lambdas.smoke_test.handler import InvalidEvidence, SmokeTestFailed, handler, read_pictures

JPEG = b"\xff\xd8\xff\xe0 a picture"
PICTURES = {"smoke/corgi/1.jpg": JPEG, "smoke/poodle/2.png": b"\x89PNG\r\n\x1a\n a picture"}


def a_file(name: str, content: bytes = JPEG, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, content


def an_archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def pictures_of(archive: bytes) -> dict[str, bytes]:
    return {picture.name: picture.content for picture in read_pictures(io.BytesIO(archive))}


def an_answer(label: str = "corgi", probability: float = 0.9) -> bytes:
    rows = [{"class": label, "probability": probability}, {"class": "pug", "probability": 0.0}]
    return json.dumps({"predictions": rows}).encode()


class Endpoint:
    """A SageMaker runtime client that answers as the test says; `answer` may raise."""

    def __init__(self, answer: Callable[[bytes], bytes], seconds: float = 0.0) -> None:
        self.answer, self.seconds = answer, seconds
        self.requests: list[dict[str, Any]] = []

    def invoke_endpoint(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        time.sleep(self.seconds)
        return {"Body": io.BytesIO(self.answer(request["Body"]))}


@pytest.fixture
def run(aws: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put an evidence archive into S3 and smoke-test an endpoint."""

    def put_and_run(endpoint: Any, archive: bytes | None = None, **event: Any) -> dict[str, Any]:
        s3 = aws("s3")
        s3.create_bucket(Bucket="artifacts")
        content = archive if archive is not None else an_archive(*(a_file(*item) for item in PICTURES.items()))
        s3.put_object(Bucket="artifacts", Key="runs/1/output.tar.gz", Body=content)
        monkeypatch.setattr(smoke_test, "runtime", lambda: endpoint)
        defaults = {
            "endpoint_name": "kelpie",
            "evidence_s3_uri": "s3://artifacts/runs/1/output.tar.gz",
            "min_accuracy": 0.5,
            "max_latency_ms": 5000,
        }
        result = handler({**defaults, **event}, context)
        assert isinstance(result, dict)
        return result

    return put_and_run


def test_a_good_endpoint_is_measured(run: Any) -> None:
    endpoint = Endpoint(lambda _: an_answer("corgi"), seconds=0.02)
    result = run(endpoint)
    assert result["accuracy"] == 0.5
    assert result["picture_count"] == 2
    assert result["latency_ms"]["max"] >= result["latency_ms"]["p50"] >= 20
    assert [row["picture"] for row in result["predictions"]] == ["corgi/1.jpg", "poodle/2.png"]
    assert result["predictions"][1]["label"] == "poodle"
    assert result["predictions"][1]["predicted"] == "corgi"
    assert result["predictions"][1]["probability"] == 0.9
    json.dumps(result)


def test_every_picture_is_sent_once_and_nothing_else_is(run: Any) -> None:
    endpoint = Endpoint(lambda _: an_answer())
    run(endpoint)
    assert [(request["ContentType"], request["Body"]) for request in endpoint.requests] == [
        ("image/jpeg", PICTURES["smoke/corgi/1.jpg"]),
        ("image/png", PICTURES["smoke/poodle/2.png"]),
    ]
    assert {request["EndpointName"] for request in endpoint.requests} == {"kelpie"}


def test_too_many_wrong_answers_fail_with_the_pictures_that_were_wrong(run: Any) -> None:
    with pytest.raises(
        SmokeTestFailed, match=r"0\.500 \(1 of 2 pictures\) .*min_accuracy 0\.7.* poodle/2\.png as corgi"
    ):
        run(Endpoint(lambda _: an_answer("corgi")), min_accuracy=0.7)


def test_accuracy_of_exactly_the_limit_is_enough() -> None:
    rows = [{"picture": "a/1", "label": "a", "predicted": "a" if n < 14 else "b", "latency_ms": 1.0} for n in range(20)]
    smoke_test.judge(smoke_test.summarise(rows), 0.7, 1.0)


def test_a_slow_picture_fails_with_its_latency_and_the_limit(run: Any) -> None:
    with pytest.raises(SmokeTestFailed, match=r"took \d+\.?\d* ms, more than smoke_test\.max_latency_ms 20"):
        run(Endpoint(lambda _: an_answer(), seconds=0.03), min_accuracy=0, max_latency_ms=20)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no list 'predictions'"),
        (b'{"predictions": []}', "no list 'predictions'"),
        (b'{"predictions": ["corgi"]}', "invalid prediction"),
        (b'{"predictions": [{"class": "corgi"}]}', "invalid prediction"),
        (b'{"predictions": [{"class": 3, "probability": 0.5}]}', "invalid prediction"),
        (b'{"predictions": [{"class": "corgi", "probability": 1.5}]}', "invalid prediction"),
        (b'{"predictions": [{"class": "corgi", "probability": NaN}]}', "invalid prediction"),
        (b'{"predictions": [{"class": "corgi", "probability": true}]}', "invalid prediction"),
        (
            b'{"predictions": [{"class": "a", "probability": 0.1}, {"class": "b", "probability": 0.9}]}',
            "not sorted",
        ),
        (b" " * (smoke_test.MAX_ANSWER_BYTES + 1), "more than 1,048,576 bytes"),
    ],
)
def test_an_answer_of_another_form_fails_with_the_picture(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, message: str
) -> None:
    monkeypatch.setattr(smoke_test, "runtime", lambda: Endpoint(lambda _: answer))
    with pytest.raises(SmokeTestFailed, match=rf"Picture corgi/1\.jpg: .*{message}"):
        smoke_test.ask("kelpie", smoke_test.Picture("corgi/1.jpg", "corgi", JPEG))


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5).map(
        lambda v: json.dumps({"predictions": v}).encode()
    )
)
def test_any_answer_is_either_a_prediction_or_a_failure(answer: bytes) -> None:
    picture = smoke_test.Picture("corgi/1.jpg", "corgi", JPEG)
    try:
        predicted, probability = smoke_test.parse_answer(picture, answer)
    except SmokeTestFailed:
        return
    assert predicted
    assert 0 <= probability <= 1


def test_an_error_of_the_model_fails_with_its_status_and_message(run: Any, aws: Any) -> None:
    runtime = aws("sagemaker-runtime")
    with Stubber(runtime) as stub:
        stub.add_client_error(
            "invoke_endpoint",
            "ModelError",
            "Received server error (500)",
            424,
            modeled_fields={"OriginalStatusCode": 500, "OriginalMessage": '{"message": "out of memory"}'},
            expected_params={"EndpointName": "kelpie", "ContentType": "image/jpeg", "Accept": ANY, "Body": JPEG},
        )
        with pytest.raises(SmokeTestFailed, match=r"Picture corgi/1\.jpg: .*status 500.*out of memory"):
            run(runtime)


def test_an_endpoint_that_is_missing_or_forbidden_fails_with_what_aws_says(run: Any, aws: Any) -> None:
    runtime = aws("sagemaker-runtime")
    with Stubber(runtime) as stub:
        stub.add_client_error("invoke_endpoint", "AccessDeniedException", "not authorized to perform", 403)
        with pytest.raises(SmokeTestFailed, match="not authorized to perform"):
            run(runtime)


def test_the_parameters_are_those_of_the_api(run: Any, aws: Any) -> None:
    runtime = aws("sagemaker-runtime")
    with Stubber(runtime) as stub:
        for content in PICTURES.values():
            body = an_answer()
            stub.add_response(
                "invoke_endpoint",
                {"Body": StreamingBody(io.BytesIO(body), len(body)), "ContentType": "application/json"},
                {"EndpointName": "kelpie", "ContentType": ANY, "Accept": "application/json", "Body": content},
            )
        assert run(runtime)["picture_count"] == 2


def test_an_endpoint_that_does_not_answer_in_time_fails(run: Any) -> None:
    def never(_: bytes) -> bytes:
        raise ReadTimeoutError(endpoint_url="https://runtime")

    with pytest.raises(SmokeTestFailed, match="gave no answer"):
        run(Endpoint(never))


def test_the_endpoint_client_never_repeats_a_request(aws: Any) -> None:
    assert smoke_test.runtime().meta.config.retries["total_max_attempts"] == 1
    assert smoke_test.runtime().meta.config.read_timeout == 65


# The archive


def test_only_what_lies_below_smoke_is_read() -> None:
    archive = an_archive(
        a_file("evaluation.json", b"{}"),
        a_file("host-0.json", b"{}"),
        a_file("smoke", b"", type=tarfile.DIRTYPE),
        a_file("smoke/corgi", b"", type=tarfile.DIRTYPE),
        a_file("./smoke/corgi/1.jpg", b"one"),
        a_file("smoke/Grüße 犬/zwei drei.jpg", b"two"),
        a_file("../smoke/corgi/2.jpg", b"outside"),
        a_file("notsmoke/corgi/3.jpg", b"three"),
    )
    assert pictures_of(archive) == {"corgi/1.jpg": b"one", "Grüße 犬/zwei drei.jpg": b"two"}


@pytest.mark.parametrize(
    "member",
    [
        a_file("smoke/corgi/../../1.jpg"),
        a_file("smoke/../1.jpg"),
        a_file("smoke/corgi/.."),
        a_file("smoke/./1.jpg"),
        a_file("smoke/1.jpg"),
        a_file("smoke/corgi/deep/1.jpg"),
        a_file("smoke//1.jpg"),
        a_file("smoke/corgi/a\nb.jpg"),
        a_file("smoke/corgi/\udc80.jpg"),
        a_file("smoke/corgi/a\\b.jpg"),
        a_file("smoke/corgi/1.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        a_file("smoke/corgi/1.jpg", b"", type=tarfile.LNKTYPE, linkname="evaluation.json"),
        a_file("smoke/corgi/1.jpg", b"", type=tarfile.CHRTYPE),
        a_file("smoke/corgi/1.jpg", b"", type=tarfile.FIFOTYPE),
    ],
    ids=lambda member: ascii(member[0].name) + str(member[0].type),
)
def test_an_odd_name_or_a_member_that_is_no_file_is_refused(member: tuple[tarfile.TarInfo, bytes]) -> None:
    with pytest.raises(InvalidEvidence):
        pictures_of(an_archive(member))


def test_a_picture_larger_than_an_endpoint_takes_is_left_out() -> None:
    large = b"\xff\xd8\xff" + bytes(smoke_test.MAX_PICTURE_BYTES)
    assert pictures_of(an_archive(a_file("smoke/a/1.jpg", large), a_file("smoke/a/2.jpg"))) == {"a/2.jpg": JPEG}


def test_an_archive_that_unpacks_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_test, "MAX_UNPACKED_BYTES", 1_000_000)
    bomb = an_archive(a_file("evaluation.json", bytes(50_000_000)), a_file("smoke/a/1.jpg"))
    assert len(bomb) < 400_000
    with pytest.raises(InvalidEvidence, match="unpacks to more than 1,000,000 bytes"):
        pictures_of(bomb)


def test_a_header_that_unpacks_too_far_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke_test, "MAX_UNPACKED_BYTES", 1_000_000)
    bomb = an_archive(a_file("smoke/a/1.jpg", pax_headers={"comment": "x" * 5_000_000}))
    with pytest.raises(InvalidEvidence, match="unpacks to more than"):
        pictures_of(bomb)


def test_too_many_members_or_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    many = an_archive(*(a_file(f"smoke/a/{number}.jpg", b"") for number in range(smoke_test.MAX_PICTURES + 1)))
    with pytest.raises(InvalidEvidence, match="more than 20 smoke pictures"):
        pictures_of(many)
    monkeypatch.setattr(smoke_test, "MAX_MEMBERS", 10)
    with pytest.raises(InvalidEvidence, match="more than 10 members"):
        pictures_of(an_archive(*(a_file(f"{number}.json", b"") for number in range(11))))


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"", "not an intact tar.gz"),
        (b"PK\x03\x04 a zip", "not an intact tar.gz"),
        (an_archive(a_file("smoke/a/1.jpg", JPEG * 1000))[:-40], "not an intact tar.gz"),
        (an_archive(), r"holds no smoke/<class>/<file>"),
        (an_archive(a_file("evaluation.json", b"{}")), r"holds no smoke/<class>/<file>"),
        (an_archive(a_file("smoke/a/1.gif", b"GIF89a")), r"smoke/a/1\.gif is no JPEG, PNG or WebP"),
    ],
    ids=["empty", "zip", "cut off", "no members", "no pictures", "a gif"],
)
def test_an_archive_without_usable_pictures_is_refused(run: Any, archive: bytes, message: str) -> None:
    with pytest.raises(InvalidEvidence, match=message):
        run(Endpoint(lambda _: an_answer()), archive)


@given(st.data())
def test_a_damaged_archive_never_ends_in_another_error(data: st.DataObject) -> None:
    archive = bytearray(an_archive(a_file("evaluation.json", b"{}" * 300), a_file("smoke/a/1.jpg")))
    for _ in range(data.draw(st.integers(1, 5))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        for name in pictures_of(bytes(archive)):
            assert name.count("/") == 1
    except (InvalidEvidence, *smoke_test.DAMAGED):
        pass


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"evidence_s3_uri": "https://example.com/x"}, "evidence_s3_uri"),
        ({"evidence_s3_uri": None}, "evidence_s3_uri"),
        ({"evidence_s3_uri": "s3://artifacts/no/such/key"}, "Cannot read .*NoSuchKey"),
        ({"endpoint_name": ""}, "endpoint_name"),
        ({"min_accuracy": "high"}, "min_accuracy"),
        ({"max_latency_ms": None}, "max_latency_ms"),
        ({"max_latency_ms": float("nan")}, "max_latency_ms"),
    ],
)
def test_a_malformed_event_is_refused_by_name(run: Any, event: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidEvidence, match=message):
        run(Endpoint(lambda _: an_answer()), **event)
