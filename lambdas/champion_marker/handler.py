"""CloudFormation custom resource: puts `champion/marker.json`, so that the champion channel is never empty.

SageMaker refuses a channel without objects, and before the first promotion there is no champion.

Environment: none of its own.
IAM: s3:PutObject on `champion/marker.json` of the artifact bucket, kms:GenerateDataKey on the key.
Timeout 60 s, memory 128 MB.

ResourceProperties: Bucket; Key (optional, default `champion/marker.json`). PhysicalResourceId and Ref:
s3://Bucket/Key.
Delete removes nothing: the object belongs to the bucket, and the bucket's own rules decide about it.
CloudFormation always gets an answer, SUCCESS or FAILED with a reason: without one it would wait for an
hour.
Errors: InvalidEvent (there is nobody to answer; only a person can send that).
"""

from __future__ import annotations

import json
import urllib.request
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

logger = Logger(service="champion-marker")

DEFAULT_KEY = "champion/marker.json"
MARKER = {
    "about": "Keeps the champion channel of the training job non-empty. The champion's model.tar.gz appears beside it."
}
_ANSWER_TIMEOUT_SECONDS = 10
# Source: AWS CloudFormation user guide, custom resource response objects: 4,096 bytes in all (read 2026-11-21).
_LONGEST_REASON = 1000


_ANSWERED = ("ResponseURL", "StackId", "RequestId", "LogicalResourceId", "RequestType")


class InvalidEvent(Exception):
    """Not what CloudFormation sends: there is nobody to answer."""


class InvalidProperties(Exception):
    """The resource's properties name no bucket."""


@cache
def s3() -> Any:
    """Return the S3 client, made once per container and not at import."""
    return boto3.client(
        "s3", config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 3})
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Do what CloudFormation asks and answer at its ResponseURL. Returns the answer that was sent.

    Raises:
        InvalidEvent: nobody to answer.
    """
    told = [event.get(key) if isinstance(event, dict) else None for key in _ANSWERED]
    if not all(isinstance(text, str) for text in told) or not str(told[0]).startswith(("https://", "http://")):
        raise InvalidEvent(f"Invalid event: expected a custom resource's request with {', '.join(_ANSWERED)}")
    properties = event.get("ResourceProperties")
    properties = properties if isinstance(properties, dict) else {}
    physical_id = event.get("PhysicalResourceId") or _physical_id(properties)
    status, reason = "SUCCESS", ""
    try:
        if event["RequestType"] in ("Create", "Update"):
            physical_id = put_marker(properties)
    except Exception as error:
        logger.exception("the marker was not put")
        status = "FAILED"
        reason = f"{type(error).__name__}: {error}; see log group {context.log_group_name}"[:_LONGEST_REASON]
    answer = {
        "Status": status,
        "Reason": reason,
        "PhysicalResourceId": physical_id,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "Data": {},
    }
    _send(event["ResponseURL"], answer)
    return answer


def put_marker(properties: dict[str, Any]) -> str:
    """Put the marker object and return its URI.

    Raises:
        InvalidProperties: there is no Bucket.
    """
    if not properties.get("Bucket"):
        raise InvalidProperties("Invalid ResourceProperties: expected 'Bucket', the name of the artifact bucket")
    s3().put_object(
        Bucket=properties["Bucket"],
        Key=properties.get("Key") or DEFAULT_KEY,
        Body=json.dumps(MARKER).encode(),
        ContentType="application/json",
    )
    return _physical_id(properties)


def _physical_id(properties: dict[str, Any]) -> str:
    return f"s3://{properties.get('Bucket', 'unknown')}/{properties.get('Key') or DEFAULT_KEY}"


def _send(url: str, answer: dict[str, Any]) -> None:
    # The URL is presigned for an empty content type; any other header value would break its signature.
    content = json.dumps(answer).encode()
    request = urllib.request.Request(url, content, {"Content-Type": ""}, method="PUT")  # noqa: S310
    with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_SECONDS):  # noqa: S310
        logger.info("answered CloudFormation", extra={"status": answer["Status"]})
