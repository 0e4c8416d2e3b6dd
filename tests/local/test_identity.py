from __future__ import annotations

import json

import pytest
from moto.iam.models import iam_backends
from moto.moto_api._internal.models import moto_api_backend

from workflow.local import identity as identities
from workflow.local.identity import AccessDenied, Identity

ACCOUNT = "123456789012"


@pytest.fixture
def identity():
    yield Identity(ACCOUNT, "us-east-1", "http://127.0.0.1:1")
    moto_api_backend.reset()


def make_role(name="training", service="sagemaker.amazonaws.com", boundary=None, **condition):
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"} | condition
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    backend = iam_backends[ACCOUNT]["aws"]
    return backend.create_role(name, trust, "/", boundary, "", {}, 3600)


def test_the_root_key_is_known_and_new_at_each_start(identity):
    principal = identity.principal(identity.root_access_key_id)
    assert (principal.kind, principal.arn) == ("root", f"arn:aws:iam::{ACCOUNT}:root")
    assert len(identity.root_access_key_id) == 20
    assert Identity(ACCOUNT, "us-east-1").root_access_key_id != identity.root_access_key_id


def test_a_key_that_was_never_issued_belongs_to_nobody(identity):
    assert identity.principal("AKIAAAAAAAAAAAAAAAAA") is None


def test_an_assumed_role_is_found_again_by_its_key(identity):
    role = make_role()
    credentials = identity.assume(role.arn, "SageMaker", "sagemaker.amazonaws.com")
    principal = identity.principal(credentials.access_key_id)
    assert principal.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/training/SageMaker"
    assert (principal.role_arn, principal.role_name, principal.kind) == (role.arn, "training", "role")


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ("lambda.amazonaws.com", "The role defined for the function cannot be assumed by Lambda."),
        ("states.amazonaws.com", "Neither the global service principal states.amazonaws.com"),
        ("events.amazonaws.com", "events.amazonaws.com is not authorized to assume the role"),
    ],
)
def test_a_role_that_does_not_trust_the_service_is_refused_in_the_services_words(identity, service, message):
    with pytest.raises(AccessDenied, match=message):
        identity.assume(make_role().arn, "x", service)


def test_a_role_that_does_not_exist_is_refused(identity):
    with pytest.raises(AccessDenied, match="Please ensure that the role exists"):
        identity.assume(f"arn:aws:iam::{ACCOUNT}:role/none", "x", "sagemaker.amazonaws.com")


def test_a_trust_condition_on_the_source_account_holds(identity):
    ours = make_role(Condition={"StringEquals": {"aws:SourceAccount": ACCOUNT}})
    identity.assume(ours.arn, "x", "sagemaker.amazonaws.com")
    theirs = make_role("other", Condition={"StringEquals": {"aws:SourceAccount": "999999999999"}})
    with pytest.raises(AccessDenied):
        identity.assume(theirs.arn, "x", "sagemaker.amazonaws.com")


def test_the_environment_names_the_session_and_this_server_only(identity):
    credentials = identity.assume(make_role().arn, "x", "sagemaker.amazonaws.com")
    environment = identity.environment(credentials)
    assert environment["AWS_ACCESS_KEY_ID"] == credentials.access_key_id
    assert environment["AWS_SESSION_TOKEN"] == credentials.session_token
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert identity.root_access_key_id not in environment.values()


def test_credentials_do_not_print_their_secrets(identity):
    credentials = identity.assume(make_role().arn, "x", "sagemaker.amazonaws.com")
    assert credentials.secret_access_key not in repr(credentials)
    assert credentials.session_token not in repr(credentials)


def test_a_client_is_made_once_for_each_role_and_service(identity):
    one, other = make_role().arn, make_role("other").arn
    client = identity.client("s3", one, "sagemaker.amazonaws.com")
    assert identity.client("s3", one, "sagemaker.amazonaws.com") is client
    assert identity.client("s3", other, "sagemaker.amazonaws.com") is not client
    assert identity.client("sns", one, "sagemaker.amazonaws.com") is not client


def test_a_client_is_refused_once_the_trust_is_withdrawn(identity):
    role = make_role()
    identity.client("s3", role.arn, "sagemaker.amazonaws.com")
    role.assume_role_policy_document = json.dumps({"Version": "2012-10-17", "Statement": []})
    with pytest.raises(AccessDenied):
        identity.client("s3", role.arn, "sagemaker.amazonaws.com")


def test_inline_and_managed_policies_are_a_roles_policies(identity):
    backend = iam_backends[ACCOUNT]["aws"]
    role = make_role()
    inline = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    managed = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "*"}]}
    role.put_policy("inline", json.dumps(inline))
    attached = backend.create_policy("", "/", json.dumps(managed), "managed", {})
    backend.attach_role_policy(attached.arn, role.name)
    assert identities.policy_documents(role.arn) == [inline, managed]
    assert identities.policy_documents(f"arn:aws:iam::{ACCOUNT}:role/none") == []


def test_the_permissions_boundary_is_found(identity):
    backend = iam_backends[ACCOUNT]["aws"]
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    boundary = backend.create_policy("", "/", json.dumps(document), "boundary", {})
    assert identities.boundary_document(make_role(boundary=boundary.arn).arn) == document
    assert identities.boundary_document(make_role("free").arn) is None
