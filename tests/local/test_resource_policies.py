"""Policies of buckets, keys, topics, queues, functions and roles, evaluated at the door of a running server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from local.test_authorization import GuardedAccount, allow, code_of, message_of, policy
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from workflow.local.authorization import AccessDenied, authorize, authorize_service
from workflow.local.cloud import Connection
from workflow.local.identity import AccessDenied as NotTrusted
from workflow.local.identity import Identity, Principal

ACCOUNT = "123456789012"
ELSEWHERE = "arn:aws:iam::999999999999"
SEALED = "arn:aws:s3:::sealed-by-policy"
PUT = {"Bucket": "sealed-by-policy", "Key": "dogs/1.jpg", "Body": b"woof"}


def deny(action: str, resource: Any, **condition: Any) -> dict[str, Any]:
    return allow(action, resource, **condition) | {"Effect": "Deny", "Principal": "*"}


@pytest.fixture(scope="module")
def account(world: Any) -> GuardedAccount:
    connection: Connection = world.connection
    return GuardedAccount(connection)


@pytest.fixture(scope="module")
def key(account: GuardedAccount) -> str:
    """The ARN of a key that lets the account's identity policies decide."""
    return str(account.root("kms").create_key()["KeyMetadata"]["Arn"])


@pytest.fixture(scope="module")
def bucket(account: GuardedAccount, key: str) -> str:
    """A bucket with the policy that stack.yaml gives to buckets: TLS only, and no other key."""
    s3 = account.root("s3")
    s3.create_bucket(Bucket="sealed-by-policy")
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket="sealed-by-policy", ServerSideEncryptionConfiguration={"Rules": [rule]})
    header = "s3:x-amz-server-side-encryption"
    document = policy(
        deny("s3:*", [SEALED, f"{SEALED}/*"], Bool={"aws:SecureTransport": "false"}),
        deny("s3:PutObject", f"{SEALED}/*", Null={header: "false"}, StringNotEquals={f"{header}-aws-kms-key-id": key}),
    )
    s3.put_bucket_policy(Bucket="sealed-by-policy", Policy=document)
    return "sealed-by-policy"


@pytest.fixture(scope="module")
def administrator(account: GuardedAccount) -> Any:
    """S3 as a role that may do everything by its own policy."""
    return account.as_role("s3", account.role("administrator", allow("*")))


def plainly(client: Any) -> Any:
    """The same client, whose requests say that they came over plain HTTP."""

    def mark(request: Any, **_: Any) -> None:
        request.headers["X-Forwarded-Proto"] = "http"

    client.meta.events.register("before-send", mark)
    return client


# ---- What is refused, by name --------------------------------------------------------------------------------


def test_a_strangers_role_is_refused(account: GuardedAccount, bucket: str, key: str) -> None:
    stranger = account.role("stranger")
    assert code_of(account.as_role("s3", stranger).put_object, **PUT) == "AccessDenied"
    assert code_of(account.as_role("kms", stranger).decrypt, KeyId=key, CiphertextBlob=b"x") == "AccessDeniedException"
    invoke = account.as_role("sagemaker-runtime", stranger).invoke_endpoint
    assert code_of(invoke, EndpointName="kelpie", Body=b"x") == "AccessDeniedException"


def test_a_role_of_another_account_is_refused(account: GuardedAccount, bucket: str) -> None:
    """Its key is not one of this account's; and were it known, a policy of its own account would not be enough."""
    s3 = account.as_role("s3", f"{ELSEWHERE}:role/administrator")
    assert code_of(s3.put_object, **PUT) == "InvalidAccessKeyId"


def test_what_another_account_allows_its_own_roles_does_not_count_here(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = [{"Statement": [allow("*")]}]
    monkeypatch.setattr("workflow.local.identity.policy_documents", lambda _: everything)
    key = kms_backends[ACCOUNT]["us-east-1"].create_key(None, "", "SYMMETRIC_DEFAULT", "", {})
    for resource in (key.arn, SEALED, f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/kelpie"):
        action = {"kms": "kms:Decrypt", "s3": "s3:ListBucket"}.get(resource.split(":")[2], "sagemaker:InvokeEndpoint")
        ours, theirs = (f"{where}:role/administrator" for where in (f"arn:aws:iam::{ACCOUNT}", ELSEWHERE))
        authorize(identity, Principal(ours, ours, "administrator", "role", ""), action, resource, {})
        with pytest.raises(AccessDenied, match="no resource-based policy allows"):
            authorize(identity, Principal(theirs, theirs, "administrator", "role", ""), action, resource, {})


def test_another_endpoints_name_is_refused(account: GuardedAccount) -> None:
    only = allow("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/kelpie")
    runtime = account.as_role("sagemaker-runtime", account.role("caller", only))
    with pytest.raises(runtime.exceptions.ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="kelpie", Body=b"x")
    assert caught.value.response["Error"]["Code"] == "ValidationError", "refused, though there is only no endpoint"
    for other in ("kelpie2", "other", "kelpi"):
        assert code_of(runtime.invoke_endpoint, EndpointName=other, Body=b"x") == "AccessDeniedException"


def test_plain_http_is_refused_even_to_an_administrator_and_to_the_root(
    account: GuardedAccount, bucket: str, administrator: Any
) -> None:
    administrator.put_object(**PUT)
    plain = plainly(account.as_role("s3", account.role("administrator", allow("*"))))
    assert "explicit deny in a resource-based policy" in message_of(plain.put_object, **PUT)
    assert code_of(plain.list_objects_v2, Bucket=bucket) == "AccessDenied"
    root = plainly(account.connection.session().client("s3", endpoint_url=account.connection.endpoint_url))
    assert "explicit deny in a resource-based policy" in message_of(root.put_object, **PUT)
    root.get_bucket_policy(Bucket=bucket)  # or nobody could ever correct it


@pytest.mark.parametrize(
    "encryption",
    [
        {"ServerSideEncryption": "AES256"},
        {"ServerSideEncryption": "aws:kms"},
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/other"},
    ],
    ids=["S3's own key", "no key", "another key"],
)
def test_a_put_that_is_not_encrypted_with_the_buckets_key_is_refused(
    account: GuardedAccount, bucket: str, administrator: Any, encryption: dict[str, str]
) -> None:
    for s3 in (administrator, account.root("s3")):
        assert "explicit deny in a resource-based policy" in message_of(s3.put_object, **PUT, **encryption)
        start = {"Bucket": bucket, "Key": "big", **encryption}
        assert "explicit deny" in message_of(s3.create_multipart_upload, **start)


def test_a_put_with_the_buckets_key_or_without_a_word_is_not(bucket: str, key: str, administrator: Any) -> None:
    administrator.put_object(**PUT)
    administrator.put_object(**PUT, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    upload = administrator.create_multipart_upload(Bucket=bucket, Key="big", ServerSideEncryption="aws:kms",
                                                   SSEKMSKeyId=key)["UploadId"]  # fmt: skip
    part = administrator.upload_part(Bucket=bucket, Key="big", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    administrator.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=upload, MultipartUpload=parts)


# ---- What resources' policies give and take ------------------------------------------------------------------


def test_a_bucket_policy_alone_lets_a_role_in(account: GuardedAccount) -> None:
    role = account.role("guest")
    account.root("s3").create_bucket(Bucket="shared-by-policy")
    statement = allow("s3:PutObject", "arn:aws:s3:::shared-by-policy/guest/*") | {"Principal": {"AWS": role}}
    account.root("s3").put_bucket_policy(Bucket="shared-by-policy", Policy=policy(statement))
    s3 = account.as_role("s3", role)
    s3.put_object(Bucket="shared-by-policy", Key="guest/x", Body=b"")
    assert code_of(s3.put_object, Bucket="shared-by-policy", Key="x", Body=b"") == "AccessDenied"


def test_a_key_policy_that_does_not_delegate_locks_an_administrator_out(account: GuardedAccount) -> None:
    owner = account.role("key-owner")
    mine = allow("kms:*") | {"Principal": {"AWS": owner}}
    arn = account.root("kms").create_key(Policy=policy(mine))["KeyMetadata"]["Arn"]
    administrator = account.as_role("kms", account.role("administrator", allow("*")))
    assert "no resource-based policy allows" in message_of(administrator.describe_key, KeyId=arn)
    account.as_role("kms", owner).describe_key(KeyId=arn)


def test_a_key_is_used_by_whoever_is_allowed_keys_with_its_tag(account: GuardedAccount) -> None:
    kms, mine = account.root("kms"), [{"TagKey": "kelpie:project", "TagValue": "dogs"}]
    arns = [kms.create_key(Tags=tags)["KeyMetadata"]["Arn"] for tags in (mine, [], [{**mine[0], "TagValue": "cats"}])]
    use = allow("kms:DescribeKey", "*", StringEquals={"aws:ResourceTag/kelpie:project": "dogs"})
    person = account.as_role("kms", account.role("of-dogs", use))
    person.describe_key(KeyId=arns[0])
    assert [code_of(person.describe_key, KeyId=arn) for arn in arns[1:]] == ["AccessDeniedException"] * 2
    kms.untag_resource(KeyId=arns[0], TagKeys=["kelpie:project"])
    assert code_of(person.describe_key, KeyId=arns[0]) == "AccessDeniedException"


def test_a_key_is_made_with_the_tag_that_the_condition_names_and_tagging_is_a_permission(
    account: GuardedAccount,
) -> None:
    tags = [{"TagKey": "kelpie:project", "TagValue": "dogs"}]
    named = {"StringEquals": {"aws:RequestTag/kelpie:project": "dogs"}}
    maker = account.as_role(
        "kms", account.role("makes-keys", allow(["kms:CreateKey", "kms:TagResource"], "*", **named))
    )
    made = maker.create_key(Tags=tags)["KeyMetadata"]["KeyId"]
    assert account.root("kms").list_resource_tags(KeyId=made)["Tags"] == tags
    assert code_of(maker.create_key) == "AccessDeniedException"
    assert code_of(maker.create_key, Tags=[{**tags[0], "TagValue": "cats"}]) == "AccessDeniedException"
    creator = account.as_role("kms", account.role("creates-keys", allow("kms:CreateKey", "*", **named)))
    assert "kms:TagResource" in message_of(creator.create_key, Tags=tags)


def test_a_topic_with_a_key_needs_permissions_on_it_to_publish(account: GuardedAccount, key: str) -> None:
    topic = account.root("sns").create_topic(Name="sealed", Attributes={"KmsMasterKeyId": key})["TopicArn"]
    publish = allow("sns:Publish", topic)
    sns = account.as_role("sns", account.role("publisher", publish))
    assert "kms:GenerateDataKey" in message_of(sns.publish, TopicArn=topic, Message="woof")
    account.role("publisher", publish, allow(["kms:GenerateDataKey", "kms:Decrypt"], key))
    sns.publish(TopicArn=topic, Message="woof")


def test_a_queue_policy_denies_what_a_role_may(account: GuardedAccount) -> None:
    root = account.root("sqs")
    url = root.create_queue(QueueName="guarded")["QueueUrl"]
    sqs = account.as_role("sqs", account.role("sender", allow("sqs:SendMessage")))
    sqs.send_message(QueueUrl=url, MessageBody="woof")
    document = policy(deny("sqs:SendMessage", f"arn:aws:sqs:us-east-1:{ACCOUNT}:guarded"))
    root.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})
    assert "explicit deny in a resource-based policy" in message_of(sqs.send_message, QueueUrl=url, MessageBody="x")


def test_what_was_asked_for_can_be_read_through_the_control_api(account: GuardedAccount) -> None:
    s3 = account.as_role("s3", account.role("watched", allow("s3:ListAllMyBuckets")))
    s3.list_buckets()
    code_of(s3.list_objects_v2, Bucket="none-such")
    found = account.connection.control("GET", "authorizations")["requests"]
    asked = {(one["action"], one["allowed"]) for one in found if one["principal"].endswith("role/door-watched")}
    assert asked == {("s3:ListAllMyBuckets", True), ("s3:ListBucket", False)}


# ---- Services in their own name, in this process ---------------------------------------------------------------


@pytest.fixture
def identity() -> Any:
    yield Identity(ACCOUNT, "us-east-1", "http://127.0.0.1:1")
    moto_api_backend.reset()


RULE = f"arn:aws:events:us-east-1:{ACCOUNT}:rule/new-data"
FROM_RULE = {
    "Effect": "Allow",
    "Principal": {"Service": "events.amazonaws.com"},
    "Resource": "*",
    "Condition": {"ArnEquals": {"aws:SourceArn": RULE}},
}


def test_a_rule_reaches_a_queue_or_a_topic_only_if_its_policy_says_so(identity: Identity) -> None:
    queue = sqs_backends[ACCOUNT]["us-east-1"].create_queue("letters", {})
    topic = sns_backends[ACCOUNT]["us-east-1"].create_topic("news")
    for action, arn in (("sqs:SendMessage", queue.queue_arn), ("sns:Publish", topic.arn)):
        with pytest.raises(AccessDenied, match="no resource-based policy allows"):
            authorize_service(identity, "events.amazonaws.com", action, arn, source_arn=RULE)
    queue.policy = policy(FROM_RULE | {"Action": "sqs:SendMessage"})
    topic._policy_json = json.loads(policy(FROM_RULE | {"Action": "sns:Publish"}))
    for action, arn in (("sqs:SendMessage", queue.queue_arn), ("sns:Publish", topic.arn)):
        authorize_service(identity, "events.amazonaws.com", action, arn, source_arn=RULE)
        for service, source in (("events.amazonaws.com", f"{RULE}2"), ("sns.amazonaws.com", RULE)):
            with pytest.raises(AccessDenied):
                authorize_service(identity, service, action, arn, source_arn=source)


def test_a_role_can_be_kept_for_one_rule(identity: Identity) -> None:
    trust = FROM_RULE | {"Action": "sts:AssumeRole"}
    del trust["Resource"]
    role = iam_backends[ACCOUNT]["aws"].create_role("rule", policy(trust), "/", None, "", {}, 3600)
    identity.assume(role.arn, "x", "events.amazonaws.com", source_arn=RULE)
    for source in (None, f"{RULE}2"):
        with pytest.raises(NotTrusted):
            identity.assume(role.arn, "x", "events.amazonaws.com", source_arn=source)
    noted = [one for one in identity.record.describe()["requests"] if one["action"] == "sts:AssumeRole"]
    assert {one["allowed"] for one in noted} == {True, False}
