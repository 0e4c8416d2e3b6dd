"""Send known pictures to the live endpoint and judge status, schema, accuracy and latency.

Environment: none of its own.
IAM: s3:GetObject on the artifact bucket's `runs/*`, s3:ListBucket on that bucket (so that a missing archive
     is told from a forbidden one), kms:Decrypt on the key, sagemaker:InvokeEndpoint on
     `endpoint/<project>`.
Timeout 300 s, memory 1024 MB.

Event: {"endpoint_name", "evidence_s3_uri", "min_accuracy", "max_latency_ms"}.
Returns {"accuracy", "picture_count", "latency_ms": {"p50", "max"}, "predictions": [{"picture", "label",
"predicted", "probability", "latency_ms"}, ...]}.
Errors: SmokeTestFailed (the model or the endpoint), InvalidEvidence (the archive or the event). None is
retried.

The pictures are `smoke/<class>/<file>` in training's evidence archive. The archive comes out of a container
that runs other people's code, so it is read as a stream with a bound on everything, and nothing is written
to disk.

Latency is what a caller sees: from the request to the last byte of the answer. The first request is
measured like the others: nothing is sent beforehand, and nothing is sent twice.
"""

from __future__ import annotations

import gzip
import json
import re
import statistics
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

logger = Logger(service="smoke-test")

MAX_PICTURES = 20
MAX_MEMBERS = 10_000
MAX_PICTURE_BYTES = 6_291_456
"""Larger pictures are left out. Source: InvokeEndpoint, BodyBlob (service model of botocore 1.44.5, 2026-11-21)."""
MAX_UNPACKED_BYTES = 256 * 1024 * 1024
MAX_ANSWER_BYTES = 1024 * 1024

DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)
"""What `gzip` and `tarfile` raise on bytes that are no intact archive."""

_S3_URI = re.compile(r"s3://([a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])/(.+)")
_PICTURE_NAME = re.compile(r"(?:\./)?smoke/([^/]+)/([^/]+)")
_ODD_CHARACTERS = re.compile(r"[\x00-\x1f\\\ud800-\udfff]")  # surrogates stand for bytes that are no UTF-8
_WRONG_SHOWN = 5
_NEXT_STEP = "The previous model is put back; run `kelpie describe` on this execution."


class SmokeTestFailed(Exception):
    """The endpoint answered wrongly, too slowly, or not at all."""


class InvalidEvidence(Exception):
    """The evidence archive is missing, damaged, hostile or without pictures, or the event is malformed."""


@dataclass(frozen=True)
class Picture:
    """One known picture: `name` is `<class>/<file>`, `label` the class."""

    name: str
    label: str
    content: bytes


@cache
def s3() -> Any:
    """Return the S3 client, made once per container and not at import."""
    return boto3.client(
        "s3",
        config=Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 5}),
    )


@cache
def runtime() -> Any:
    """Return the client of the endpoint, without retries: they would hide failures and spoil the latency.

    Source: SageMaker API reference, InvokeEndpoint: a model must answer within 60 seconds (read 2026-11-21).
    """
    return boto3.client(
        "sagemaker-runtime",
        config=Config(connect_timeout=5, read_timeout=65, retries={"total_max_attempts": 1}),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Return the measured accuracy and latency, when they are good enough.

    Raises:
        SmokeTestFailed: says which picture or which limit.
        InvalidEvidence: says what is wrong with the archive or the event.
    """
    endpoint_name = event.get("endpoint_name") if isinstance(event, dict) else None
    if not isinstance(endpoint_name, str) or not endpoint_name:
        raise InvalidEvidence("Invalid event: expected 'endpoint_name'; deploy the stack again.")
    min_accuracy = _positive_number(event, "min_accuracy")
    max_latency_ms = _positive_number(event, "max_latency_ms")
    pictures = fetch_pictures(event.get("evidence_s3_uri"))
    predictions = [ask(endpoint_name, picture) for picture in pictures]
    result = summarise(predictions)
    logger.info("smoke test measured", extra={key: result[key] for key in ("accuracy", "latency_ms")})
    judge(result, min_accuracy, max_latency_ms)
    return result


def fetch_pictures(evidence_s3_uri: Any) -> list[Picture]:
    """Return the known pictures of an evidence archive in S3, sorted by name.

    Raises:
        InvalidEvidence: see the class.
    """
    match = _S3_URI.fullmatch(evidence_s3_uri) if isinstance(evidence_s3_uri, str) else None
    if match is None:
        raise InvalidEvidence(
            f"Invalid evidence_s3_uri {str(evidence_s3_uri)[:200]!r}, expected s3://bucket/.../output.tar.gz"
        )
    try:
        body = s3().get_object(Bucket=match[1], Key=match[2])["Body"]
        pictures = sorted(read_pictures(body), key=lambda picture: picture.name)
    except (ClientError, BotoCoreError) as error:
        raise InvalidEvidence(f"Cannot read {evidence_s3_uri}: {error}") from error
    except DAMAGED as error:
        raise InvalidEvidence(f"{evidence_s3_uri} is not an intact tar.gz archive: {error}") from error
    if not pictures:
        raise InvalidEvidence(
            f"{evidence_s3_uri} holds no smoke/<class>/<file> of at most {MAX_PICTURE_BYTES:,} bytes: training wrote "
            "no such test pictures into its output folder ($SM_OUTPUT_DATA_DIR/smoke)"
        )
    return pictures


class _Bounded:
    """A reader that ends in InvalidEvidence when more than `limit` bytes were read from it."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidEvidence(f"The evidence archive unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
        return data


def read_pictures(stream: Any) -> Iterator[Picture]:
    """Yield the pictures of a tar.gz stream; only regular members named smoke/<class>/<file> are read.

    Raises:
        InvalidEvidence: a bound is exceeded, or a link, a device or an odd name stands below smoke/.
    """
    count = 0
    unpacked = _Bounded(gzip.GzipFile(fileobj=stream), MAX_UNPACKED_BYTES)
    # Members are dropped as they pass, because `tarfile` would keep every header in memory.
    with tarfile.open(fileobj=unpacked, mode="r|") as archive:  # type: ignore[call-overload]
        for number, member in enumerate(archive, start=1):
            archive.members = []
            if number > MAX_MEMBERS:
                raise InvalidEvidence(f"The evidence archive has more than {MAX_MEMBERS:,} members")
            if not 0 <= member.size <= MAX_UNPACKED_BYTES:  # tarfile would try to skip that much, for ever
                raise InvalidEvidence(
                    f"The evidence archive unpacks to more than {MAX_UNPACKED_BYTES:,} bytes, or has no right sizes"
                )
            name = member.name.removeprefix("./")
            if not name.startswith("smoke/") or member.isdir():
                continue
            match = _PICTURE_NAME.fullmatch(name)
            if match is None or {match[1], match[2]} & {".", ".."} or _ODD_CHARACTERS.search(name):
                raise InvalidEvidence(f"Unexpected member {name[:200]!a}, expected smoke/<class>/<file>")
            if not member.isreg() or member.issparse():
                raise InvalidEvidence(f"Member {name[:200]!a} is no regular file (type {member.type!r})")
            if member.size > MAX_PICTURE_BYTES:
                logger.warning("picture too large for an endpoint", extra={"picture": name, "bytes": member.size})
                continue
            count += 1
            if count > MAX_PICTURES:
                raise InvalidEvidence(f"The evidence archive has more than {MAX_PICTURES} smoke pictures")
            file = archive.extractfile(member)
            assert file is not None  # a regular member always has content
            yield Picture(f"{match[1]}/{match[2]}", match[1], file.read())


def ask(endpoint_name: str, picture: Picture) -> dict[str, Any]:
    """Send one picture and return its prediction with the latency in milliseconds.

    Raises:
        SmokeTestFailed: no answer, an error status, or an answer of another schema.
    """
    started = time.perf_counter()
    try:
        answer = runtime().invoke_endpoint(
            EndpointName=endpoint_name,
            ContentType=_content_type(picture),
            Accept="application/json",
            Body=picture.content,
        )
        body: bytes = answer["Body"].read(MAX_ANSWER_BYTES + 1)
    except ClientError as error:
        _fail(picture, f"endpoint {endpoint_name} refused it: {_what_the_model_said(error)}")
    except (BotoCoreError, OSError) as error:
        _fail(picture, f"endpoint {endpoint_name} gave no answer: {error}")
    latency_ms = (time.perf_counter() - started) * 1000
    predicted, probability = parse_answer(picture, body)
    return {
        "picture": picture.name,
        "label": picture.label,
        "predicted": predicted,
        "probability": probability,
        "latency_ms": round(latency_ms, 1),
    }


def parse_answer(picture: Picture, body: bytes) -> tuple[str, float]:
    """Return the most probable class and its probability.

    Raises:
        SmokeTestFailed: the body is not {"predictions": [{"class", "probability"}, ...]}, most probable first.
    """
    if len(body) > MAX_ANSWER_BYTES:
        _fail(picture, f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        _fail(picture, f"the answer is not JSON: {body[:80]!r}")
    predictions = answer.get("predictions") if isinstance(answer, dict) else None
    if not isinstance(predictions, list) or not predictions:
        _fail(picture, f"the answer has no list 'predictions': {body[:80]!r}")
    probabilities: list[float] = []
    for row in predictions:
        probability = row.get("probability") if isinstance(row, dict) else None
        if (
            not isinstance(row, dict)
            or not isinstance(row.get("class"), str)
            or isinstance(probability, bool)
            or not isinstance(probability, int | float)
            or not 0 <= probability <= 1
        ):
            _fail(
                picture,
                f"invalid prediction {str(row)[:80]}, expected a 'class' and a 'probability' from 0 to 1",
            )
        probabilities.append(float(probability))
    if probabilities != sorted(probabilities, reverse=True):
        _fail(picture, "the predictions are not sorted by probability, highest first")
    return predictions[0]["class"], probabilities[0]


def summarise(predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return accuracy and latency over all predictions."""
    right = sum(row["predicted"] == row["label"] for row in predictions)
    latencies = [row["latency_ms"] for row in predictions]
    return {
        "accuracy": right / len(predictions),
        "picture_count": len(predictions),
        "latency_ms": {"p50": round(statistics.median(latencies), 1), "max": max(latencies)},
        "predictions": predictions,
    }


def judge(result: dict[str, Any], min_accuracy: float, max_latency_ms: float) -> None:
    """Raise SmokeTestFailed when the accuracy is too low or a picture took too long."""
    wrong = [row for row in result["predictions"] if row["predicted"] != row["label"]]
    count = result["picture_count"]
    if result["accuracy"] < min_accuracy:
        named = ", ".join(f"{row['picture']} as {row['predicted']}" for row in wrong[:_WRONG_SHOWN])
        raise SmokeTestFailed(
            f"Accuracy {result['accuracy']:.3f} ({count - len(wrong)} of {count} pictures) is below "
            f"smoke_test.min_accuracy {min_accuracy}; wrong are {named[:400]}. {_NEXT_STEP}"
        )
    slowest = max(result["predictions"], key=lambda row: row["latency_ms"])
    if slowest["latency_ms"] > max_latency_ms:
        raise SmokeTestFailed(
            f"Picture {slowest['picture']} took {slowest['latency_ms']} ms, more than smoke_test.max_latency_ms "
            f"{max_latency_ms} (the median is {result['latency_ms']['p50']} ms). {_NEXT_STEP}"
        )


def _fail(picture: Picture, what: str) -> NoReturn:
    raise SmokeTestFailed(f"Picture {picture.name}: {what}. {_NEXT_STEP}")


def _what_the_model_said(error: ClientError) -> str:
    """ModelError carries the container's own status and message; other errors only have their text."""
    response: dict[str, Any] = dict(error.response)
    status = response.get("OriginalStatusCode")
    if status is None:
        return str(error)[:300]
    return f"status {status}, {str(response.get('OriginalMessage', ''))[:300]}"


def _content_type(picture: Picture) -> str:
    head = picture.content[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "image/webp"
    raise InvalidEvidence(f"Picture smoke/{picture.name} is no JPEG, PNG or WebP: it begins with {head!r}")


def _positive_number(event: dict[str, Any], key: str) -> float:
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
        raise InvalidEvidence(
            f"Invalid smoke_test.{key} {str(value)[:80]!r}, expected a number from 0 to 1e9. "
            "Correct it in kelpie.toml or in the execution's input."
        )
    return float(value)
