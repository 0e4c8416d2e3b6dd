from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.local import policies
from workflow.local.policies import Effect, UnsupportedPolicy, evaluate, matches, trusts

OBJECT = "arn:aws:s3:::data/dogs/1.jpg"


def statement(effect="Allow", action="s3:GetObject", resource=OBJECT, **others):
    base = {"Effect": effect, "Action": action, "Resource": resource} | others
    return {"Statement": {key: value for key, value in base.items() if value is not None}}


def decide(*documents, action="s3:GetObject", resource=OBJECT, context=None):
    return evaluate(documents, action, resource, context or {})


@given(st.text("ab/:[]*?.", max_size=8), st.text("ab/:[]*?.", max_size=8))
def test_wildcards_match_as_fnmatch_does_without_its_brackets(pattern, value):
    expected = fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))
    assert matches(pattern, value) == expected


def test_a_star_spans_slashes_colons_and_line_ends():
    assert matches("arn:aws:s3:::data/*", "arn:aws:s3:::data/a/b:c\nd")


def test_nothing_is_allowed_without_a_statement():
    assert decide() is Effect.IMPLICIT_DENY


def test_an_allow_needs_both_the_action_and_the_resource():
    assert decide(statement()) is Effect.ALLOW
    assert decide(statement(action="s3:PutObject")) is Effect.IMPLICIT_DENY
    assert decide(statement(resource="arn:aws:s3:::data/cats/*")) is Effect.IMPLICIT_DENY


def test_actions_ignore_case_and_resources_do_not():
    assert decide(statement(action="S3:getobject")) is Effect.ALLOW
    assert decide(statement(resource=OBJECT.upper())) is Effect.IMPLICIT_DENY


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_explicit_deny_wins_in_any_order(order):
    documents = [statement(resource="*"), statement("Deny")]
    assert decide(*(documents[i] for i in order)) is Effect.EXPLICIT_DENY


def test_not_action_and_not_resource_mean_all_but():
    others = statement(action=None, NotAction=["s3:Delete*"], resource="*")
    assert decide(others) is Effect.ALLOW
    assert decide(others, action="s3:DeleteObject") is Effect.IMPLICIT_DENY
    elsewhere = statement(resource=None, NotResource="arn:aws:s3:::secret/*")
    assert decide(elsewhere) is Effect.ALLOW
    assert decide(elsewhere, resource="arn:aws:s3:::secret/x") is Effect.IMPLICIT_DENY


ROLE = "arn:aws:iam::123456789012:role/kelpie/training"


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        ({"StringEquals": {"iam:PassedToService": "a"}}, {"iam:PassedToService": "a"}, True),
        ({"StringEquals": {"iam:passedtoservice": ["b", "a"]}}, {"iam:PassedToService": "a"}, True),
        ({"StringEquals": {"iam:PassedToService": "a"}}, {"iam:PassedToService": "A"}, False),
        ({"StringEqualsIgnoreCase": {"iam:PassedToService": "a"}}, {"iam:PassedToService": "A"}, True),
        ({"StringEquals": {"iam:PassedToService": "a"}}, {}, False),
        ({"StringEqualsIfExists": {"iam:PassedToService": "a"}}, {}, True),
        ({"StringEqualsIfExists": {"iam:PassedToService": "a"}}, {"iam:PassedToService": "b"}, False),
        ({"StringNotEquals": {"s3:prefix": "a"}}, {}, True),
        ({"StringNotEquals": {"s3:prefix": ["a", "b"]}}, {"s3:prefix": "b"}, False),
        ({"StringLike": {"s3:prefix": ["datasets/*"]}}, {"s3:prefix": "datasets/dogs/"}, True),
        ({"StringNotLike": {"s3:prefix": "datasets/*"}}, {"s3:prefix": "datasets/dogs/"}, False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/kelpie/*"}}, {"aws:PrincipalArn": ROLE}, True),
        ({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::1*"}}, {"aws:PrincipalArn": ROLE}, False),
        ({"Bool": {"aws:SecureTransport": True}}, {"aws:SecureTransport": "true"}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws:SecureTransport": "true"}, False),
        ({"Null": {"aws:TagKeys": "true"}}, {}, True),
        ({"Null": {"aws:TagKeys": "true"}}, {"aws:TagKeys": ["a"]}, False),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ["b", "a"]}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": ["b", "a"]}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": "a"}}, {}, True),
        ({"Null": {"aws:TagKeys": "false"}, "StringNotEquals": {"s3:acl": "a"}}, {}, False),
        ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, {"s3:max-keys": "10"}, True),
        ({"NumericLessThan": {"s3:max-keys": 10}}, {"s3:max-keys": "10"}, False),
        ({"NumericNotEquals": {"s3:max-keys": "10"}}, {}, True),
        ({"NumericGreaterThanIfExists": {"s3:max-keys": "10"}}, {}, True),
        ({"NumericEquals": {"s3:max-keys": ["1", "2.0"]}}, {"s3:max-keys": "2"}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}, {"aws:CurrentTime": "2025-12-31"}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "1767225600"}}, {"aws:CurrentTime": "2026-01-01T00:00:01Z"}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "10.1.2.3"}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "11.1.2.3"}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "11.1.2.3"}, True),
        ({"ArnNotLike": {"aws:SourceArn": "arn:aws:events:*:*:rule/a"}}, {"aws:SourceArn": "arn:aws:events:r:1:rule/b"},
         True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "kelpie:*"}}, {"aws:TagKeys": ["x", "kelpie:run"]}, True),
        ({"ForAnyValue:StringLike": {"aws:TagKeys": "kelpie:*"}}, {}, False),
        ({"StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}},
         {"aws:ResourceAccount": "1", "aws:PrincipalAccount": "1"}, True),
        ({"StringEquals": {"s3:prefix": "${*}"}}, {"s3:prefix": "*"}, True),
        ({"StringLike": {"s3:prefix": "a${*}"}}, {"s3:prefix": "ab"}, False),
        ({"StringEquals": {"a:b": "1", "c:d": "2"}}, {"a:b": "1", "c:d": "3"}, False),
    ],
)  # fmt: skip
def test_conditions_decide_whether_a_statement_counts(condition, context, holds):
    effect = decide(statement(Condition=condition), context=context)
    assert effect is (Effect.ALLOW if holds else Effect.IMPLICIT_DENY)


def test_an_operator_that_is_not_understood_is_an_error_and_not_an_allow():
    with pytest.raises(UnsupportedPolicy, match="BinaryEquals"):
        decide(statement(Condition={"BinaryEquals": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}))


def test_a_policy_variable_is_an_error_and_not_a_literal():
    with pytest.raises(UnsupportedPolicy, match="aws:username"):
        decide(statement(resource="arn:aws:s3:::data/${aws:username}/*"))


def test_a_policy_variable_stands_for_its_value_literally():
    own = statement(resource="arn:aws:s3:::data/${aws:PrincipalAccount}/*")
    inside, star = "arn:aws:s3:::data/1/x", {"aws:PrincipalAccount": "*"}
    assert decide(own, resource=inside, context={"aws:PrincipalAccount": "1"}) is Effect.ALLOW
    assert decide(own, resource=inside, context={"aws:PrincipalAccount": "2"}) is Effect.IMPLICIT_DENY
    assert decide(own, resource=inside, context=star) is Effect.IMPLICIT_DENY


@pytest.mark.parametrize(
    ("condition", "context"),
    [
        ({"NumericLessThan": {"s3:max-keys": "many"}}, {"s3:max-keys": "1"}),
        ({"DateLessThan": {"aws:CurrentTime": "soon"}}, {"aws:CurrentTime": "2026-01-01"}),
        ({"IpAddress": {"aws:SourceIp": "home"}}, {"aws:SourceIp": "10.0.0.1"}),
        ({"ForNoValue:StringEquals": {"aws:TagKeys": "a"}}, {"aws:TagKeys": "a"}),
        ({"NullIfExists": {"aws:TagKeys": "true"}}, {}),
        ({"StringEquals": {"s3:prefix": "${aws:username}"}}, {"s3:prefix": "a"}),
    ],
)
def test_a_condition_that_cannot_be_evaluated_is_an_error(condition, context):
    with pytest.raises(UnsupportedPolicy):
        decide(statement(Condition=condition), context=context)


def test_a_statement_without_a_known_effect_is_an_error():
    with pytest.raises(UnsupportedPolicy, match="Effect"):
        decide(statement(effect="Perhaps"))


def trust(principal, **others):
    return {"Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"} | others]}


@pytest.mark.parametrize(
    ("document", "kind", "principal", "trusted"),
    [
        (trust({"Service": ["a.amazonaws.com", "b.amazonaws.com"]}), "Service", "b.amazonaws.com", True),
        (trust({"Service": "a.amazonaws.com"}), "Service", "b.amazonaws.com", False),
        (trust({"Service": "a.amazonaws.com"}, Effect="Deny"), "Service", "a.amazonaws.com", False),
        (trust({"Service": "a.amazonaws.com"}, Action="sts:TagSession"), "Service", "a.amazonaws.com", False),
        (trust({"AWS": ROLE}), "AWS", ROLE, True),
        (trust({"AWS": "arn:aws:iam::123456789012:root"}), "AWS", ROLE, True),
        (trust({"AWS": "123456789012"}), "AWS", ROLE, True),
        (trust({"AWS": "arn:aws:iam::999999999999:root"}), "AWS", ROLE, False),
        (trust("*"), "AWS", ROLE, True),
        (trust({"Service": "a.amazonaws.com"}), "AWS", ROLE, False),
    ],
)
def test_a_trust_policy_names_who_may_assume_the_role(document, kind, principal, trusted):
    assert trusts(document, kind, principal, {}) is trusted


def test_a_trust_policys_condition_counts():
    document = trust({"Service": "a.amazonaws.com"}, Condition={"StringEquals": {"aws:SourceAccount": "123456789012"}})
    assert trusts(document, "Service", "a.amazonaws.com", {"aws:SourceAccount": "123456789012"})
    assert not trusts(document, "Service", "a.amazonaws.com", {"aws:SourceAccount": "999999999999"})


def test_a_document_may_be_text_or_parsed():
    assert policies.parse('{"Statement": []}') == policies.parse({"Statement": []})
