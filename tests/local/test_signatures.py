"""Who signed a request: what boto3 sends is accepted, and nothing that was changed or signed by somebody else."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto.core.request import Request
from werkzeug.exceptions import ClientDisconnected
from werkzeug.wrappers import Request as WerkzeugRequest

from workflow.local import signatures

KEY_ID, SECRET = "AKIAAAAAAAAAAAAAAAAA", "secret"
KEYS = ["plain", "with space", "ünï©ode/狗", "a+b=c&d", "tilde~(1)'*!", "100%25", "colon:at@", "trailing/"]


@pytest.fixture(scope="module")
def account(world):
    return world.connection


def client(account: Any, service: str, secret: str | None = None, **config: Any) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=account.endpoint_url,
        aws_access_key_id=account.access_key_id,
        aws_secret_access_key=secret or account.secret_access_key,
        config=Config(**config) if config else None,
    )


CALLS = [
    ("sts", "get_caller_identity", {}),
    ("iam", "list_roles", {}),
    ("s3", "list_buckets", {}),
    ("dynamodb", "list_tables", {}),
    ("logs", "describe_log_groups", {}),
    ("cloudwatch", "list_metrics", {}),
    ("sns", "list_topics", {}),
    ("stepfunctions", "list_state_machines", {}),
    ("lambda", "list_functions", {}),
    ("lambda", "get_function", {"FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:no ne"}),
    ("cloudformation", "list_stacks", {}),
    ("resourcegroupstaggingapi", "get_resources", {}),
    ("ssm", "get_parameters", {"Names": ["/a b"]}),
    ("events", "list_rules", {}),
    ("kms", "list_keys", {}),
    ("application-autoscaling", "describe_scalable_targets", {"ServiceNamespace": "sagemaker"}),
    ("sagemaker", "list_endpoints", {}),
    ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "none", "Body": bytes(range(256)) * 40}),
    ("xray", "put_trace_segments", {"TraceSegmentDocuments": ["{}"]}),
]


def code_of(client: Any, method: str, parameters: dict[str, Any]) -> str | None:
    try:
        getattr(client, method)(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


REFUSED = {"SignatureDoesNotMatch", "InvalidSignatureException"}


@pytest.mark.parametrize(("service", "method", "parameters"), CALLS, ids=lambda value: str(value)[:24])
def test_the_right_secret_is_needed_for_every_service(account, service, method, parameters):
    assert code_of(client(account, service), method, parameters) not in {*REFUSED, "IncompleteSignature"}
    assert code_of(client(account, service, "guessed"), method, parameters) in REFUSED


@pytest.mark.parametrize("key", KEYS)
def test_keys_of_any_kind_can_be_written_read_listed_and_presigned(account, world, key):
    s3 = client(account, "s3")
    place = {"Bucket": world.bucket, "Key": f"signed/{key}"}
    s3.put_object(**place, Body=b"woof", Metadata={"under_score": "a  b"}, ContentType="image/jpeg; x=y")
    assert s3.get_object(**place, Range="bytes=1-2")["Body"].read() == b"oo"
    listed = s3.list_objects_v2(Bucket=world.bucket, Prefix=place["Key"])
    assert [item["Key"] for item in listed["Contents"]] == [place["Key"]]
    s3.copy_object(Bucket=world.bucket, Key="signed/copy", CopySource=place)
    for version in ("s3", "s3v4"):
        signer = client(account, "s3", signature_version=version)
        url = signer.generate_presigned_url("get_object", {**place, "ResponseContentType": "a/b"})
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == b"woof"
    s3.delete_objects(Bucket=world.bucket, Delete={"Objects": [{"Key": place["Key"]}]})


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256", "SHA1"])
def test_checksums_and_uploads_in_parts_are_accepted(account, world, algorithm, tmp_path):
    s3 = client(account, "s3")
    s3.put_object(Bucket=world.bucket, Key="sum", Body=b"woof", ChecksumAlgorithm=algorithm)
    (tmp_path / "big").write_bytes(b"x" * (9 << 20))
    s3.upload_file(str(tmp_path / "big"), world.bucket, "big", ExtraArgs={"ChecksumAlgorithm": algorithm})
    assert s3.head_object(Bucket=world.bucket, Key="big")["ContentLength"] == 9 << 20
    with (tmp_path / "big").open("rb") as file:
        s3.put_object(Bucket=world.bucket, Key="stream", Body=file)
    s3.download_file(world.bucket, "big", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_size == 9 << 20


def test_a_presigned_upload_works_and_a_changed_or_old_url_does_not(account, world):
    for version in ("s3", "s3v4"):
        s3 = client(account, "s3", signature_version=version)
        place = {"Bucket": world.bucket, "Key": "put here"}
        url = s3.generate_presigned_url("put_object", place)
        send(url, b"woof", "PUT")
        assert client(account, "s3").get_object(**place)["Body"].read() == b"woof"
        assert status_of(url.replace("put%20here", "elsewhere"), b"woof", "PUT") == 403
        assert status_of(url, None, "GET") == 403
        assert status_of(s3.generate_presigned_url("get_object", place, ExpiresIn=-1), None, "GET") in (400, 403)
        forged = client(account, "s3", "guessed", signature_version=version)
        assert status_of(forged.generate_presigned_url("get_object", place), None, "GET") == 403


def send(url: str, body: bytes | None, method: str) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": ""}, method=method)
    urllib.request.urlopen(request).close()


def status_of(url: str, body: bytes | None, method: str) -> int:
    try:
        send(url, body, method)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


# ---- One request, without a server ----------------------------------------------------------------------------


def signed(body: bytes = b"{}", service: str = "sagemaker", token: str | None = None, **headers: str) -> dict[str, Any]:
    url = "http://127.0.0.1:1/" if service != "s3" else "http://127.0.0.1:1/bucket/a%20b"
    request = AWSRequest("POST", url, {"Host": "127.0.0.1:1", **headers}, body)
    auth = S3SigV4Auth if service == "s3" else SigV4Auth
    auth(Credentials(KEY_ID, SECRET, token), service, "us-east-1").add_auth(request)
    return Request.from_primitives("POST", url, request.headers, body).environ


def verify(environ: dict[str, Any]) -> None:
    signature = signatures.read(environ)
    assert signature is not None
    signatures.verify(signature, SECRET, environ)


@pytest.mark.parametrize("service", ["sagemaker", "s3"])
def test_a_body_that_was_changed_on_the_way_is_refused(service):
    verify(signed(service=service))
    environ = signed(service=service)
    environ["wsgi.input"] = signed(b"[]")["wsgi.input"]
    with pytest.raises(signatures.Mismatch):
        verify(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_X_AMZ_TARGET", "SageMaker.DeleteEndpoint"),
        ("HTTP_HOST", "other:1"),
        ("REQUEST_METHOD", "PUT"),
        ("RAW_URI", "/other"),
        ("QUERY_STRING", "Action=X"),
        ("HTTP_X_AMZ_SECURITY_TOKEN", "other"),
    ],
)
def test_what_was_signed_cannot_be_changed(name, value):
    environ = signed(**{"X-Amz-Target": "SageMaker.ListEndpoints"})
    verify(environ)
    environ[name] = value
    with pytest.raises(signatures.Mismatch):
        verify(environ)


@pytest.mark.parametrize("minutes", [-16, 16])
def test_an_old_request_cannot_be_sent_again(minutes, monkeypatch):
    environ = signed()
    now = time.time() + 60 * minutes
    monkeypatch.setattr("workflow.local.signatures.time.time", lambda: now)
    with pytest.raises(signatures.Mismatch, match="expired or not yet current"):
        verify(environ)


@pytest.mark.parametrize(
    "path", ["/bucket/secret;x", "/bucket/secret#x", "/bucket/s\xfc", "/b\\c", "http://h/bucket/key"]
)
def test_a_path_that_two_readers_cut_differently_is_refused(path):
    environ = signed()
    environ["RAW_URI"] = path
    with pytest.raises(signatures.Malformed, match="percent-encoded"):
        signatures.read(environ)


def test_a_chunk_by_chunk_signed_body_is_refused_because_its_chunks_are_not_checked():
    environ = signed(service="s3")
    environ["HTTP_X_AMZ_CONTENT_SHA256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    with pytest.raises(signatures.Malformed, match="does not know"):
        verify(environ)


@pytest.mark.parametrize(
    ("sent", "length", "whole"), [(b"body", "4", True), (b"bod", "4", False), (b"", "0", True), (b"body", None, True)]
)
def test_a_body_is_put_back_and_known_to_end_where_all_of_it_came(sent: bytes, length: str | None, whole: bool) -> None:
    environ: dict[str, Any] = {"wsgi.input": io.BufferedReader(io.BytesIO(sent))}  # type: ignore[arg-type]
    environ |= {"wsgi.input_terminated": True} if length is None else {"CONTENT_LENGTH": length}
    assert signatures.body_of(environ) == signatures.body_of(environ) == sent
    assert environ.get("wsgi.input_terminated", False) is whole
    if whole:
        assert WerkzeugRequest(environ).get_data() == sent
    else:
        with pytest.raises(ClientDisconnected):
            WerkzeugRequest(environ).get_data()
