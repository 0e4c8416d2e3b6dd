"""The policies for people: they cover what the stack and the commands need, and no more."""

from __future__ import annotations

import json
import re
from typing import Any

import deployer_policy
import pytest
from deployer_policy import COMMANDS, DOCUMENTS, OPERATION, OPTIONAL_RESOURCE_TYPES, RESOURCE_TYPES, UNSCOPED
from policy_sentry.querying.actions import get_action_data

from workflow.deployment import template
from workflow.local.decisions import Policies, Request, decide
from workflow.local.policies import Caller

WHOLE = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))
ALL = sorted({action for policy in DOCUMENTS.values() for one in policy["Statement"] for action in one["Action"]})

DEPLOYER = ("deployer-policy-base.json", "deployer-policy-workflow.json")


def allowed(*documents: str) -> set[str]:
    return {action for name in documents for one in DOCUMENTS[name]["Statement"] for action in one["Action"]}


def of_type(resource_type: str) -> list[dict[str, Any]]:
    return [one for one in WHOLE["Resources"].values() if one["Type"] == resource_type]


def test_the_documents_are_what_the_tables_say() -> None:
    for name, policy in DOCUMENTS.items():
        written = json.loads((deployer_policy.FOLDER / name).read_text(encoding="utf-8"))
        assert written == policy, "write them anew: python tests/deployer_policy.py"


def test_every_resource_type_of_the_stack_can_be_created_and_deleted() -> None:
    types = {one["Type"] for one in WHOLE["Resources"].values()}
    assert types == {*RESOURCE_TYPES, *OPTIONAL_RESOURCE_TYPES}
    always = {one["Type"] for one in WHOLE["Resources"].values() if "Condition" not in one}
    # A subscription is made only when there is an address; leaving it with the rest spares a document.
    assert set(RESOURCE_TYPES) - {"AWS::SNS::Subscription"} == always
    for needs in RESOURCE_TYPES.values():
        assert needs <= allowed(*DEPLOYER)
    for needs in OPTIONAL_RESOURCE_TYPES.values():
        assert needs <= allowed(*DEPLOYER, "deployer-policy-options.json")


def resources_of(action: str) -> set[str]:
    """The forms of ARN on which IAM knows an action; `*` for those that have none."""
    service, _, name = action.partition(":")
    found = get_action_data(service, name)
    assert found, f"IAM knows no action {action}"
    return {row["resource_arn_format"] for rows in found.values() for row in rows}


def test_every_action_exists_and_can_be_narrowed_down_to_what_it_is() -> None:
    for action in set(ALL) - UNSCOPED.keys() - deployer_policy.MAKE_KEYS:
        service = action.partition(":")[0]
        forms = {form.split(":")[2] for form in resources_of(action) - {"*"}}
        assert service in forms, action


def test_what_is_allowed_everywhere_has_no_resources_or_a_reason() -> None:
    assert {action for action, why in UNSCOPED.items() if not why} == set()
    for action, why in UNSCOPED.items():
        has_resources = resources_of(action) != {"*"}
        assert has_resources == ("has no resources" not in why), action
    for policy in DOCUMENTS.values():
        for statement in policy["Statement"]:
            assert ("*" in statement["Resource"]) == (statement["Sid"] in ("NoResources", "MakeKeys"))


KEY = "arn:aws:kms:us-east-1:123456789012:key/0f"
MAKING: dict[str, Any] = {
    "aws:RequestTag/kelpie:project": "dogs",
    "aws:TagKeys": ["kelpie:project"],
    "aws:CalledVia": ["cloudformation.amazonaws.com"],
}


def allows(action: str, resource: str, **context: Any) -> bool:
    """Whether the deployer and the operator in one person may do it for a project called dogs."""
    documents = [
        json.loads(deployer_policy.filled_in(policy, "dogs", "us-east-1", "123456789012"))
        for policy in DOCUMENTS.values()
    ]
    role = "arn:aws:iam::123456789012:role/deployer"
    request = Request(Caller(role, role), action, resource, context)
    own = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "kms:*", "Resource": "*"}]}
    return decide(request, Policies(tuple(documents), None, own if resource == KEY else None)).allowed


@pytest.mark.parametrize("action", sorted(one for one in ALL if one.startswith("kms:") and one not in UNSCOPED))
def test_no_other_projects_key_is_used_changed_or_deleted(action: str) -> None:
    for tags, whose in (({}, "untagged"), ({"aws:ResourceTag/kelpie:project": "cats"}, "another project's")):
        assert not allows(action, KEY, **tags), whose
    if action not in deployer_policy.MAKE_KEYS:
        assert allows(action, KEY, **{"aws:ResourceTag/kelpie:project": "dogs"})


def test_an_alias_of_the_projects_name_only() -> None:
    for action in deployer_policy.ALIASES:
        assert allows(action, "arn:aws:kms:us-east-1:123456789012:alias/dogs")
        assert not allows(action, "arn:aws:kms:us-east-1:123456789012:alias/cats")


@pytest.mark.parametrize(
    "strange",
    [
        {"aws:RequestTag/kelpie:project": "cats"},
        {"aws:TagKeys": ["kelpie:project", "other"]},
        {"aws:CalledVia": ["lambda.amazonaws.com"]},
    ],
    ids=lambda strange: next(iter(strange)),
)
def test_only_cloudformation_makes_and_tags_keys_and_with_the_projects_tag_only(strange: dict[str, Any]) -> None:
    assert allows("kms:CreateKey", "*", **MAKING)
    assert allows("kms:TagResource", KEY, **MAKING)
    for key in (*strange, *MAKING):
        changed = {name: value for name, value in {**MAKING, **strange}.items() if name in strange or name != key}
        assert not allows("kms:CreateKey", "*", **changed), changed
        assert not allows("kms:TagResource", KEY, **changed), changed


def test_the_key_of_the_stack_has_the_tag_that_the_policies_ask_for() -> None:
    [key] = of_type("AWS::KMS::Key")
    assert key["Properties"]["Tags"] == [{"Key": deployer_policy.TAG, "Value": {"Ref": "ProjectName"}}]


def test_roles_are_passed_to_the_services_that_the_stack_gives_them_to() -> None:
    given = {
        "codebuild": of_type("AWS::CodeBuild::Project"),
        "events": [one for one in of_type("AWS::Events::Rule") if "RoleArn" in json.dumps(one)],
        "lambda": of_type("AWS::Lambda::Function"),
        "scheduler": of_type("AWS::Scheduler::Schedule"),
        "states": of_type("AWS::StepFunctions::StateMachine"),
        "vpc-flow-logs": of_type("AWS::EC2::FlowLog"),
    }
    assert all(given.values())
    assert set(given) == {*deployer_policy.PASSED_TO, *deployer_policy.PASSED_TO_OPTIONALLY}
    for policy in DOCUMENTS.values():
        for statement in policy["Statement"]:
            if "iam:PassRole" in statement["Action"]:
                assert statement["Resource"] == ["arn:aws:iam::ACCOUNT_ID:role/PROJECT-*"]
                assert set(statement["Condition"]["StringEquals"]["iam:PassedToService"]) <= {
                    f"{service}.amazonaws.com" for service in given
                }


def test_no_action_is_a_pattern_and_every_one_is_in_a_table() -> None:
    tables = (RESOURCE_TYPES, OPTIONAL_RESOURCE_TYPES, COMMANDS, OPERATION)
    assert set(ALL) == set().union(*(needs for table in tables for needs in table.values()))
    assert [action for action in ALL if "*" in action] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_fits_into_a_managed_policy(name: str) -> None:
    filled = deployer_policy.filled_in(DOCUMENTS[name], "p" * 24, "ap-southeast-1", "123456789012")
    assert len(re.sub(r"\s", "", filled)) <= deployer_policy.LIMIT_CHARACTERS
