"""Identity policies, permissions boundary and the resource's own policy together."""

from __future__ import annotations

import pytest

from workflow.local.decisions import Policies, Request, decide
from workflow.local.policies import Caller, Grant, UnsupportedPolicy, grant

ACCOUNT, OTHER = "123456789012", "999999999999"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/training"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/training/SageMaker"
TRAINER = Caller(SESSION, ROLE)
OURS = Caller("events.amazonaws.com")
STRANGER = Caller(f"arn:aws:iam::{OTHER}:role/training", f"arn:aws:iam::{OTHER}:role/training")
OBJECT = "arn:aws:s3:::data/dog.jpg"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k"


def document(effect="Allow", action="*", resource="*", **others):
    return {"Statement": [{"Effect": effect, "Action": action, "Resource": resource, **others}]}


def own(principal, effect="Allow", **others):
    return document(effect, Principal=principal, **others)


def allowed(*, caller=TRAINER, action="s3:GetObject", resource=OBJECT, identity=(), boundary=None, own=None, **context):
    request = Request(caller, action, resource, {"aws:ResourceAccount": ACCOUNT, **context})
    return decide(request, Policies(tuple(identity), boundary, own)).allowed


ANYTHING = document()
NOTHING = {"Statement": []}


@pytest.mark.parametrize(
    ("identity", "resource_policy", "expected"),
    [
        ([], None, False),
        ([ANYTHING], None, True),
        ([ANYTHING], NOTHING, True),
        ([], own({"AWS": ROLE}), True),
        ([], own({"AWS": SESSION}), True),
        ([], own({"AWS": f"{ROLE}2"}), False),
        ([], own("*"), True),
        ([], own({"AWS": "*"}), True),
        ([], own({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}), False),
        ([ANYTHING], own({"AWS": ROLE}, "Deny"), False),
        ([ANYTHING], own({"AWS": ACCOUNT}, "Deny"), False),
        ([ANYTHING], own({"AWS": OTHER}, "Deny"), True),
        ([document("Deny")], own({"AWS": ROLE}), False),
        ([ANYTHING], own({"Service": "events.amazonaws.com"}, "Deny"), True),
    ],
)
def test_in_one_account_either_side_allows_and_any_deny_ends_it(identity, resource_policy, expected):
    assert allowed(identity=identity, own=resource_policy) is expected


@pytest.mark.parametrize(
    ("identity", "key_policy", "expected"),
    [
        ([ANYTHING], NOTHING, False),
        ([ANYTHING], own({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}), True),
        ([], own({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}), False),
        ([], own({"AWS": ROLE}), True),
        ([ANYTHING], own({"AWS": f"arn:aws:iam::{OTHER}:root"}), False),
        ([ANYTHING], own({"AWS": ACCOUNT}, action="kms:Describe*"), False),
    ],
)
@pytest.mark.parametrize("action", ["kms:Decrypt", "sts:AssumeRole"])
def test_a_key_and_a_role_must_agree_themselves(identity, key_policy, expected, action):
    assert allowed(action=action, resource=KEY, identity=identity, own=key_policy) is expected


def test_between_accounts_both_sides_must_allow():
    both = {"caller": STRANGER, "identity": [ANYTHING], "own": own({"AWS": OTHER})}
    assert allowed(**both)
    assert not allowed(**both | {"identity": []})
    assert not allowed(**both | {"own": None})
    assert not allowed(**both | {"own": own({"AWS": ACCOUNT})})


def test_a_service_in_its_own_name_needs_the_resources_policy():
    to_events = own({"Service": "events.amazonaws.com"}, Condition={"StringEquals": {"aws:SourceAccount": ACCOUNT}})
    assert allowed(caller=OURS, own=to_events, **{"aws:SourceAccount": ACCOUNT})
    assert not allowed(caller=OURS, own=to_events, **{"aws:SourceAccount": OTHER})
    assert not allowed(caller=OURS, own=to_events)
    assert not allowed(caller=Caller("sns.amazonaws.com"), own=to_events, **{"aws:SourceAccount": ACCOUNT})
    assert not allowed(caller=OURS, own=own({"AWS": ACCOUNT}))


def test_a_boundary_limits_what_a_resources_policy_gives():
    assert allowed(own=own({"AWS": ROLE}), boundary=ANYTHING)
    assert not allowed(own=own({"AWS": ROLE}), boundary=NOTHING)
    assert not allowed(identity=[ANYTHING], boundary=document("Deny"))


@pytest.mark.parametrize(
    "principal",
    [
        {"Federated": "cognito-identity.amazonaws.com"},
        {"CanonicalUser": "0" * 64},
        {"Service": "events"},
        {"AWS": f"arn:aws:iam::{ACCOUNT}:role/*"},
        {"AWS": "AIDACKCEVSQ6C2EXAMPLE"},
        None,
        "everybody",
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_a_principal_of_an_unknown_form_denies_whatever_the_effect_was(principal, effect):
    policy = own(principal, effect)
    with pytest.raises(UnsupportedPolicy):
        grant(policy, TRAINER, "s3:GetObject", OBJECT, {})
    assert not allowed(identity=[ANYTHING], own=policy)


def test_not_principal_is_refused():
    policy = document("Deny", NotPrincipal={"AWS": ROLE})
    assert not allowed(identity=[ANYTHING], own=policy)


def test_the_reason_says_which_side_did_not_allow():
    def why(identity, resource_policy):
        request = Request(TRAINER, "kms:Decrypt", KEY, {})
        return decide(request, Policies(identity, None, resource_policy)).why

    assert why((), None) == "because no identity-based policy allows the kms:Decrypt action"
    assert why((ANYTHING,), NOTHING) == "because no resource-based policy allows the kms:Decrypt action"
    assert why((ANYTHING,), own("*", "Deny")) == "with an explicit deny in a resource-based policy"
    assert why((document("Deny"),), None) == "with an explicit deny in an identity-based policy"


def test_a_direct_allow_counts_more_than_a_delegation():
    both = {"Statement": [*own({"AWS": ACCOUNT})["Statement"], *own({"AWS": ROLE})["Statement"]]}
    assert grant(both, TRAINER, "kms:Decrypt", KEY, {}) is Grant.ALLOWS
