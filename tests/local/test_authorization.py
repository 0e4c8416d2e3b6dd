from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moto.core.request import Request
from moto.iam.models import iam_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication

from workflow.account import Account as Operator
from workflow.local import operations, signatures
from workflow.local.action_tables import PASSED_ROLES, SERVICES
from workflow.local.actions import Account, needs
from workflow.local.authorization import Door
from workflow.local.cloud import Connection
from workflow.local.identity import Credentials, Identity
from workflow.local.refusals import Refusal

S3_READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::store-1/*"}
MAPPED = [(s, o) for s, entry in SERVICES.items() for o in entry.operations if (s, o) != ("sts", "GetCallerIdentity")]
ROLE_ARN = "arn:aws:iam::123456789012:role/passed"


def allow(action, resource="*", **condition):
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return statement | ({"Condition": condition} if condition else {})


def code_of(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return caught.value.response["Error"]["Code"]


def message_of(call, **parameters):
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return caught.value.response["Error"]["Message"]


@dataclass
class GuardedAccount:
    """The running local cloud, with clients of its root key and of roles."""

    connection: Connection

    @cached_property
    def _account(self) -> Operator:
        return self.connection.account()

    def root(self, service: str, **keys: str | None) -> Any:
        if not keys:
            return self._account.client(service)
        root = {"aws_access_key_id": self.connection.access_key_id, "aws_secret_access_key": "unused"}
        return boto3.client(
            service, region_name="us-east-1", endpoint_url=self.connection.endpoint_url, **{**root, **keys}
        )

    def role(self, name: str, *statements: Mapping[str, Any]) -> str:
        """Make a role of this name that SageMaker may assume, or give it another policy."""
        iam = self.root("iam")
        name = f"door-{name}"
        trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
        nothing = {"Effect": "Deny", "Action": "none:Nothing", "Resource": "*"}
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*(statements or [nothing])))
        return f"arn:aws:iam::123456789012:role/{name}"

    def session_of(self, role_arn: str) -> dict[str, str]:
        keys = self.root("sts").assume_role(RoleArn=role_arn, RoleSessionName="test")["Credentials"]
        return {
            "aws_access_key_id": keys["AccessKeyId"],
            "aws_secret_access_key": keys["SecretAccessKey"],
            "aws_session_token": keys["SessionToken"],
        }

    def as_role(self, service: str, role_arn: str) -> Any:
        return self.root(service, **self.session_of(role_arn))


def policy(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture(scope="module")
def identity():
    yield Identity("123456789012", "us-east-1", "http://127.0.0.1:1")
    moto_api_backend.reset()


@pytest.fixture(scope="module")
def session(identity):
    """Credentials of a role in this process, for requests that go to a Door and not to a server."""
    trust = policy({"Effect": "Allow", "Principal": {"Service": "a.amazonaws.com"}, "Action": "sts:AssumeRole"})
    role = iam_backends["123456789012"]["aws"].create_role("any", trust, "/", None, "", {}, 3600)
    delegated = policy({"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"})
    iam_backends["123456789012"]["aws"].create_role("passed", delegated, "/", None, "", {}, 3600)
    return identity.assume(role.arn, "test", "a.amazonaws.com")


# ---- Every mapped operation, through the wire format of its own client --------------------------------------


def sample(shape: Any, name: str = "") -> Any:
    """The smallest value that botocore accepts for a shape, lists and maps with one element."""
    if shape.type_name == "structure":
        return {member: sample(shape.members[member], member) for member in shape.required_members}
    if shape.type_name == "list":
        return [sample(shape.member, name)]
    if shape.type_name == "map":
        return {"key": sample(shape.value, name)}
    if shape.type_name == "string":
        if shape.enum:
            return shape.enum[0]
        if "role" in name.lower() and "name" not in name.lower():
            return ROLE_ARN
        return f"name-{name}".ljust(shape.metadata.get("min", 0), "x")
    return {
        "boolean": True, "blob": b"blob", "timestamp": "2026-11-21T00:00:00Z", "double": 1.0, "float": 1.0,
    }.get(shape.type_name, 1)  # fmt: skip


class Wire:
    """Clients that hand over what they would send."""

    def __init__(self, identity: Identity, session: Credentials) -> None:
        self._identity, self._session = identity, session
        self._clients: dict[str, Any] = {}
        self._sent: list[Any] = []

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,
                region_name="us-east-1",
                endpoint_url=self._identity.endpoint_url,
                aws_access_key_id=self._session.access_key_id,
                aws_secret_access_key=self._session.secret_access_key,
                aws_session_token=self._session.session_token,
            )
            self._clients[service].meta.events.register_first("before-send", self._intercept)
        return self._clients[service]

    def _intercept(self, request: Any, **_: Any) -> None:
        self._sent.append(request)
        raise KeyboardInterrupt

    def request(self, service: str, operation: str) -> tuple[Callable[[], dict[str, Any]], dict[str, Any]]:
        """The WSGI environment (made anew at each call) and the parameters of a minimal request."""
        client = self._client(service)
        shape = client.meta.service_model.operation_model(operation).input_shape
        parameters = sample(shape) if shape else {}
        if passed := PASSED_ROLES.get((service, operation)):
            name, separator, member = re.fullmatch(r"(\w+)(\[\]\.|\.|)(\w*)", passed[0]).groups()
            within = {member: ROLE_ARN}
            if separator:
                parameters[name] = parameters[name] | within if separator == "." else [parameters[name][0] | within]
            else:
                parameters[name] = ROLE_ARN
        parameters |= MINIMAL.get(operation, {})
        method = next(m for m, o in client.meta.method_to_api_mapping.items() if o == operation)
        with pytest.raises(KeyboardInterrupt):
            getattr(client, method)(**parameters)
        sent = self._sent.pop()
        return lambda: Request.from_primitives(sent.method, sent.url, sent.headers, sent.body).environ, parameters


MINIMAL = {
    "TransactWriteItems": {"TransactItems": [{"Delete": {"TableName": "t", "Key": {}}}]},
    "TransactGetItems": {"TransactItems": [{"Get": {"TableName": "t", "Key": {}}}]},
    "CreateModelPackage": {"ModelPackageGroupName": "dogs"},
    "RegisterScalableTarget": {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/e/variant/v"},
    "Publish": {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t"},
}


@pytest.fixture(scope="module")
def wire(identity, session):
    return Wire(identity, session)


@pytest.mark.parametrize(("service", "operation"), MAPPED)
def test_an_operation_is_allowed_by_exactly_its_needs_and_denied_without_any_of_them(
    service, operation, identity, wire, monkeypatch
):
    documents: list[Any] = []
    monkeypatch.setattr("workflow.local.identity.policy_documents", lambda _arn: documents)
    environ, parameters = wire.request(service, operation)
    required = needs(service, operation, parameters, Account(identity.account_id, identity.region))
    assert required
    statements = [
        allow(need.action, need.resource, **({"StringEquals": need.context} if "PassRole" in need.action else {}))
        for need in required
    ]
    door = Door(identity)
    documents[:] = [{"Statement": statements}]
    door.check(environ())
    for missing in required:
        documents[:] = [{"Statement": [s for s in statements if s["Action"] != missing.action]}]
        with pytest.raises(Refusal, match="is not authorized to perform") as caught:
            door.check(environ())
        assert missing.action in caught.value.message


# ---- The door of a running server ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(world):
    store = GuardedAccount(world.connection)
    s3 = store.root("s3")
    s3.create_bucket(Bucket="store-1")
    s3.put_object(Bucket="store-1", Key="a/b c.txt", Body=b"woof")
    return store


def test_the_root_key_may_do_everything(store):
    assert store.root("s3").get_object(Bucket="store-1", Key="a/b c.txt")["Body"].read() == b"woof"


@pytest.mark.parametrize(
    ("service", "method", "code"),
    [
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("dynamodb", "list_tables", "UnrecognizedClientException"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
    ],
)
def test_an_unknown_key_is_refused_in_the_services_words(store, service, method, code):
    client = store.root(service, aws_access_key_id="AKIAAAAAAAAAAAAAAAAA")
    assert code_of(getattr(client, method)) == code


def test_a_role_session_without_its_token_is_refused(store):
    keys = store.session_of(store.role("any"))
    for token in (None, "guessed"):
        client = store.root("sts", **{**keys, "aws_session_token": token})
        assert code_of(client.get_caller_identity) == "InvalidClientTokenId"


@pytest.mark.parametrize("path", ["/store-1/a/b%20c.txt", "/", "/moto-api/data.json", "/latest/meta-data/"])
def test_an_unsigned_request_is_refused(store, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(store.connection.endpoint_url + path)
    with caught.value as answer:
        assert answer.code == 403


def test_a_role_may_read_what_its_policy_says_and_nothing_else(store):
    s3 = store.as_role("s3", store.role("reader", S3_READ))
    assert s3.get_object(Bucket="store-1", Key="a/b c.txt")["Body"].read() == b"woof"
    assert code_of(s3.put_object, Bucket="store-1", Key="x", Body=b"") == "AccessDenied"
    assert code_of(s3.list_objects_v2, Bucket="store-1") == "AccessDenied"


def test_the_denial_names_user_action_and_resource_as_aws_does(store):
    sagemaker = store.as_role("sagemaker", store.role("nobody"))
    assert message_of(sagemaker.describe_endpoint, EndpointName="Dogs") == (
        "User: arn:aws:sts::123456789012:assumed-role/door-nobody/test is not authorized to perform: "
        "sagemaker:DescribeEndpoint on resource: arn:aws:sagemaker:us-east-1:123456789012:endpoint/dogs because no "
        "identity-based policy allows the sagemaker:DescribeEndpoint action"
    )


@pytest.mark.parametrize(
    ("service", "method", "parameters", "code"),
    [
        ("s3", "list_buckets", {}, "AccessDenied"),
        ("s3", "head_object", {"Bucket": "store-1", "Key": "a"}, "403"),
        ("dynamodb", "list_tables", {}, "AccessDeniedException"),
        ("lambda", "list_functions", {}, "AccessDeniedException"),
        ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": b"\xff\x00"}, "AccessDeniedException"),
        ("sns", "list_topics", {}, "AuthorizationError"),
        ("iam", "list_roles", {}, "AccessDenied"),
        ("cloudwatch", "list_metrics", {}, "AccessDenied"),
        ("logs", "describe_log_groups", {}, "AccessDeniedException"),
    ],
)
def test_a_denial_comes_in_the_services_own_protocol(store, service, method, parameters, code):
    client = store.as_role(service, store.role("nobody"))
    assert code_of(getattr(client, method), **parameters) == code


def test_an_operation_that_nobody_mapped_is_denied_even_to_an_administrator(store):
    sagemaker = store.as_role("sagemaker", store.role("admin", allow("*")))
    assert "sagemaker:ListApps because the local cloud has no entry" in message_of(sagemaker.list_apps)
    glue = store.as_role("glue", store.role("admin", allow("*")))
    assert "no entry" in message_of(glue.list_jobs)


def test_an_explicit_deny_wins_and_says_so(store):
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::store-1/a/*"}
    s3 = store.as_role("s3", store.role("denied", S3_READ, deny))
    assert "with an explicit deny" in message_of(s3.get_object, Bucket="store-1", Key="a/b c.txt")


def test_a_policy_that_cannot_be_evaluated_denies_and_says_why(store):
    odd = allow("s3:GetObject", "*", BinaryEquals={"aws:CurrentTime": "2030-01-01T00:00:00Z"})
    s3 = store.as_role("s3", store.role("odd", odd))
    assert "BinaryEquals" in message_of(s3.get_object, Bucket="store-1", Key="a/b c.txt")


def test_a_permissions_boundary_limits_what_the_policies_allow(store):
    arn = store.role("bounded", allow("s3:*"))
    iam = store.root("iam")
    document = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:List*", "Resource": "*"}]}'
    boundary = iam.create_policy(PolicyName="door-only-lists", PolicyDocument=document)["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName="door-bounded", PermissionsBoundary=boundary)
    s3 = store.as_role("s3", arn)
    s3.list_objects_v2(Bucket="store-1")
    assert "no permissions boundary allows" in message_of(s3.get_object, Bucket="store-1", Key="a/b c.txt")


def test_removing_a_statement_takes_effect_at_once(store):
    s3 = store.as_role("s3", store.role("changing", S3_READ))
    s3.get_object(Bucket="store-1", Key="a/b c.txt")
    store.role("changing")
    assert code_of(s3.get_object, Bucket="store-1", Key="a/b c.txt") == "AccessDenied"


def test_a_missing_key_is_not_found_only_for_who_may_list(store):
    s3 = store.as_role("s3", store.role("reader", S3_READ))
    assert "s3:ListBucket" in message_of(s3.get_object, Bucket="store-1", Key="none")
    lister = store.as_role("s3", store.role("lister", S3_READ, allow("s3:ListBucket", "arn:aws:s3:::store-1")))
    assert code_of(lister.get_object, Bucket="store-1", Key="none") == "NoSuchKey"


def test_listing_can_be_limited_to_a_prefix(store):
    only = allow("s3:ListBucket", "arn:aws:s3:::store-1", StringLike={"s3:prefix": "a/*"})
    s3 = store.as_role("s3", store.role("prefixed", only))
    assert s3.list_objects_v2(Bucket="store-1", Prefix="a/")["KeyCount"] == 1
    assert code_of(s3.list_objects_v2, Bucket="store-1") == "AccessDenied"


def test_a_copy_needs_both_ends(store):
    source, target = "arn:aws:s3:::store-1/a/*", "arn:aws:s3:::store-1/copy/*"
    copy = {"Bucket": "store-1", "Key": "copy/x", "CopySource": "store-1/a/b c.txt"}
    both = (allow("s3:GetObject", source), allow("s3:PutObject", target))
    store.as_role("s3", store.role("copier", *both)).copy_object(**copy)
    for one in both:
        s3 = store.as_role("s3", store.role("copier", one))
        assert code_of(s3.copy_object, **copy) == "AccessDenied"


def test_each_deleted_key_is_checked(store):
    store.root("s3").put_object(Bucket="store-1", Key="tmp/1", Body=b"")
    s3 = store.as_role("s3", store.role("deleter", allow("s3:DeleteObject", "arn:aws:s3:::store-1/tmp/*")))
    keys = [{"Key": "tmp/1"}, {"Key": "a/b c.txt"}]
    assert code_of(s3.delete_objects, Bucket="store-1", Delete={"Objects": keys}) == "AccessDenied"
    assert s3.delete_objects(Bucket="store-1", Delete={"Objects": keys[:1]})["Deleted"] == [{"Key": "tmp/1"}]


def test_a_bucket_with_its_own_key_needs_permissions_on_that_key(store):
    key = store.root("kms").create_key()["KeyMetadata"]["Arn"]
    root = store.root("s3")
    root.create_bucket(Bucket="sealed-1")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    root.put_bucket_encryption(Bucket="sealed-1", ServerSideEncryptionConfiguration={"Rules": [rule]})
    objects = allow(["s3:GetObject", "s3:PutObject"], "arn:aws:s3:::sealed-1/*")
    s3 = store.as_role("s3", store.role("sealed", objects))
    assert "kms:GenerateDataKey" in message_of(s3.put_object, Bucket="sealed-1", Key="k", Body=b"x")
    root.put_object(Bucket="sealed-1", Key="k", Body=b"x")
    assert "kms:Decrypt" in message_of(s3.get_object, Bucket="sealed-1", Key="k")
    store.role("sealed", objects, allow(["kms:Decrypt", "kms:GenerateDataKey"], key))
    s3.put_object(Bucket="sealed-1", Key="k", Body=b"y")
    assert s3.get_object(Bucket="sealed-1", Key="k")["Body"].read() == b"y"


def test_a_presigned_url_carries_its_signers_permissions(store):
    s3 = store.as_role("s3", store.role("reader", S3_READ))
    parameters = {"Bucket": "store-1", "Key": "a/b c.txt"}
    with urllib.request.urlopen(s3.generate_presigned_url("get_object", Params=parameters)) as answer:
        assert answer.read() == b"woof"
    store.role("nobody")
    denied = store.as_role("s3", store.role("nobody")).generate_presigned_url("get_object", Params=parameters)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(denied)
    with caught.value as answer:
        assert answer.code == 403


def test_a_role_is_passed_only_where_the_condition_says(store):
    passed = store.role("passed")
    model = {"ModelName": "m", "ExecutionRoleArn": passed, "PrimaryContainer": {"Image": "i"}}
    create = allow("sagemaker:CreateModel")

    def to(service):
        return allow("iam:PassRole", passed, StringEquals={"iam:PassedToService": service})

    for statements in ([create], [create, to("lambda.amazonaws.com")]):
        sagemaker = store.as_role("sagemaker", store.role("creator", *statements))
        assert f"iam:PassRole on resource: {passed}" in message_of(sagemaker.create_model, **model)
    store.role("creator", create, to("sagemaker.amazonaws.com"))
    sagemaker.create_model(**model)


def test_a_policy_that_demands_tls_does_not_block_loopback(store):
    tls = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    s3 = store.as_role("s3", store.role("tls", S3_READ, tls))
    s3.get_object(Bucket="store-1", Key="a/b c.txt")


def test_a_role_assumes_another_only_if_that_one_trusts_it(store):
    sts = store.as_role("sts", store.role("assumer", allow("sts:AssumeRole")))
    iam = store.root("iam")
    target = store.role("target", allow("s3:ListAllMyBuckets"))
    assume = {"RoleArn": target, "RoleSessionName": "test"}
    assert code_of(sts.assume_role, **assume) == "AccessDenied"
    trust = policy({"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"})
    iam.update_assume_role_policy(RoleName="door-target", PolicyDocument=trust)
    assert sts.assume_role(**assume)["AssumedRoleUser"]["Arn"].endswith("assumed-role/door-target/test")


def test_anybody_known_may_ask_who_he_is(store):
    sts = store.as_role("sts", store.role("nobody"))
    assert sts.get_caller_identity()["Arn"].endswith("assumed-role/door-nobody/test")


def test_the_root_key_is_called_root(store):
    assert store.root("sts").get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:root"


def test_a_large_compressed_metric_request_is_understood(store):
    only = allow("cloudwatch:PutMetricData", "*", StringEquals={"cloudwatch:namespace": "Dogs"})
    cloudwatch = store.as_role("cloudwatch", store.role("meter", only))
    data = [{"MetricName": "m" * 50, "Value": float(i)} for i in range(400)]
    cloudwatch.put_metric_data(Namespace="Dogs", MetricData=data)
    assert code_of(cloudwatch.put_metric_data, Namespace="Cats", MetricData=data) == "AccessDenied"


def test_a_refused_upload_gets_the_refusal_and_not_a_reset_connection(store):
    s3 = store.as_role("s3", store.role("nobody"))
    assert code_of(s3.put_object, Bucket="store-1", Key="big", Body=bytes(20_000_000)) == "AccessDenied"


JSON = {"Content-Type": "application/x-amz-json-1.1"}


def environ_of(
    session: Any,
    path: str,
    query: str = "",
    *,
    service: str = "sagemaker",
    method: str = "POST",
    body: bytes = b"{}",
    region: str = "us-east-1",
    **headers: str,
) -> dict[str, Any]:
    """A request that is signed rightly, whatever else is wrong with it."""
    request = AWSRequest(
        method,
        f"http://127.0.0.1:1{path}" + (f"?{query}" if query else ""),
        {**({} if service in ("s3", "lambda") else JSON), "Host": "127.0.0.1:1", **headers},
        body,
    )
    keys = BotoCredentials(session.access_key_id, session.secret_access_key, session.session_token)
    (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, region).add_auth(request)
    url = f"http://{request.headers['Host']}{path}" + (f"?{query}" if query else "")
    return Request.from_primitives(method, url, request.headers, body).environ


def test_an_operation_smuggled_in_the_query_string_is_refused(identity, session):
    """moto reads Action from there first, so the checked operation would not be the one that runs."""
    with pytest.raises(Refusal, match="query string"):
        Door(identity).check(environ_of(session, "/", "Action=DeleteEndpoint", **LIST_ENDPOINTS))


@pytest.mark.parametrize("path", ["/moto-api/reset", "/latest/meta-data/x"])
def test_motos_own_pages_are_closed_to_roles(identity, session, path):
    with pytest.raises(Refusal, match="is not authorized to use"):
        Door(identity).check(environ_of(session, path))


def test_a_custom_resource_may_answer_without_a_signature(identity, session):
    environ = environ_of(session, "/cloudformation_us-east-1/cfnresponse", "stack=x")
    del environ["HTTP_AUTHORIZATION"]
    Door(identity).check(environ)


# ---- What is authorised is what moto executes -----------------------------------------------------------------

LIST_ENDPOINTS = {"X-Amz-Target": "SageMaker.ListEndpoints"}
LIST_TOPICS = b"Action=ListTopics&Version=2010-03-31"
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
CONFUSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "JSON that is a form as well, with an action": (
        "/", {"body": b'{"x":"&Action=DeleteEndpoint&y"}', **LIST_ENDPOINTS}),
    "JSON that is a form as well, with a parameter": (
        "/", {"body": b'{"EndpointName":"mine","x":"&EndpointName=other&y"}',
              "X-Amz-Target": "SageMaker.DescribeEndpoint"}),
    "a path beside the target": ("/bucket/key", LIST_ENDPOINTS),
    "a target of another service": ("/", {"X-Amz-Target": "Logs_20140328.PutLogEvents"}),
    "two targets": ("/", {"X-Amz-Target": "SageMaker.ListEndpoints,SageMaker.DeleteEndpoint"}),
    "a GET of an RPC service": ("/", {"method": "GET", **LIST_ENDPOINTS}),
    "an empty body, so that headers become parameters": ("/", {"body": b"", "Action": "X", **LIST_ENDPOINTS}),
    "a multipart body": ("/", {"Content-Type": "multipart/form-data; boundary=x", **LIST_ENDPOINTS}),
    "an action given twice": (
        "/", {"service": "sns", "body": LIST_TOPICS + b"&Action=DeleteTopic", **FORM}),
    "a form with a target": ("/", {"service": "sns", "body": LIST_TOPICS, **FORM, **LIST_ENDPOINTS}),
    "a bucket in the host": ("/key", {"service": "s3", "method": "PUT", "Host": "other.s3.amazonaws.com"}),
    "another service in the host": ("/", {"Host": "iam.amazonaws.com", **LIST_ENDPOINTS}),
    "another account": ("/", {"X-Moto-Account-Id": "999999999999", **LIST_ENDPOINTS}),
    "a region that makes the host one of S3": ("/", {"region": "s3", **LIST_ENDPOINTS}),
    "an encoded slash in the bucket": ("/bucket%2Fkey", {"service": "s3", "method": "GET"}),
    "a subresource of another operation": ("/bucket", {
        "query": "list-type=2&policy=", "service": "s3", "method": "GET"}),
    "an upload id without its part": ("/bucket/key", {"query": "uploadId=1", "service": "s3", "method": "PUT"}),
    "an action beside a path": ("/2015-03-31/functions/f", {
        "query": "Action=DeleteFunction", "service": "lambda", "method": "GET", "body": b""}),
    "a target beside a path": ("/2015-03-31/functions/f", {
        "X-Amz-Target": "L.DeleteFunction", "service": "lambda", "method": "GET", "body": b""}),
    "a header that names an action": ("/2015-03-31/functions/f", {
        "Action": "DeleteFunction", "service": "lambda", "method": "GET", "body": b""}),
    "a payload that is a form as well": ("/2015-03-31/functions/f/invocations", {
        "service": "lambda", "body": b'{"x":"&FunctionName=other&y"}'}),
}  # fmt: skip


@pytest.mark.parametrize("confusion", CONFUSIONS)
def test_a_request_that_moto_could_read_otherwise_is_refused_even_to_an_administrator(
    confusion, identity, session, monkeypatch
):
    monkeypatch.setattr("workflow.local.identity.policy_documents", lambda _arn: [{"Statement": [allow("*")]}])
    path, more = CONFUSIONS[confusion]
    with pytest.raises(Refusal, match=r"more than one way|no entry|host of a request|not allowed|authenticated"):
        Door(identity).check(environ_of(session, path, **more))


def test_the_same_requests_without_the_confusion_pass(identity, session, monkeypatch):
    monkeypatch.setattr("workflow.local.identity.policy_documents", lambda _arn: [{"Statement": [allow("*")]}])
    door = Door(identity)
    door.check(environ_of(session, "/", **LIST_ENDPOINTS))
    door.check(environ_of(session, "/", service="sns", body=LIST_TOPICS, **FORM))
    door.check(environ_of(session, "/bucket", "list-type=2", service="s3", method="GET", body=b""))
    door.check(environ_of(session, "/2015-03-31/functions/f/invocations", service="lambda", body=b'{"x":"&y=1"}'))


PIECES = st.sampled_from(
    [
        "Credential=", "KEY/20261121/us-east-1/", "s3", "logs", "sagemaker", "/aws4_request", ",", ", ", " ", "\t",
        "AWS4-HMAC-SHA256 ", "SignedHeaders=host", "Signature=" + "0" * 64, "x/1/us-east-1/s3/aws4_request", "/",
        "KEY/20261121/us-east-1/logs/aws4_request", "KEY/20261121/s3/logs/aws4_request", "execute-api",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=8), st.sampled_from(["/", "/bucket/key", "/v20180820/x", "/s3_us-east-1/x"]))
@example(
    ["AWS4-HMAC-SHA256 ", "x/1/us-east-1/s3/aws4_request", ", Credential=", "KEY/20261121/us-east-1/logs/aws4_request"],
    "/bucket/key",
)
@settings(max_examples=400)
def test_what_can_be_read_as_a_signature_names_the_service_that_moto_dispatches_to(pieces, path):
    header = "".join(pieces).replace("KEY", "AKIAAAAAAAAAAAAAAAAA")
    environ = Request.from_primitives("PUT", f"http://127.0.0.1:1{path}", {"Authorization": header}, b"").environ
    try:
        signature = signatures.read(environ)
    except signatures.Malformed:
        return
    if signature is None:
        return
    environ[operations.SERVICE_KEY] = operations.service_of(signature.service, environ)
    dispatcher = DomainDispatcherApplication(lambda _: None)
    host = operations.infer_service_region_host(dispatcher, environ, path)
    expected = "s3" if signature.service == "s3" else signature.service
    assert dispatcher.get_backend_for_host(host) in (expected, None)
