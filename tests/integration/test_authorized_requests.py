"""All scenarios that permissions are for, run in a local cloud that records what is asked for.

The record is written to build/; what the fast tests and docs/reference/permissions.md are made from is the committed
copy, which must say the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import authorized_requests
import pytest
from integration.scenarios import REFUSED, SCENARIOS
from integration.test_faults import Drill, drilling
from stack_policies import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    with drilling(tmp_path_factory.mktemp("authorized") / "local") as drill:
        yield drill


def test_the_scenarios_ask_for_what_the_committed_record_says(drill: Drill) -> None:
    found = {}
    for name, run in SCENARIOS.items():
        run(drill)
        time.sleep(1)  # the last log lines are written after an execution has ended
        record = drill.cloud.connection.control("GET", "authorizations")
        assert record["dropped"] == 0
        refused = {one["action"] for one in record["requests"] if not one["allowed"]}
        assert refused == REFUSED.get(name, set()), f"refused in {name!r}"
        found[name] = [one for one in record["requests"] if one["allowed"]]
        drill.cloud.connection.control("DELETE", "authorizations")
    resources = drill.cloud.account.client("cloudformation").describe_stack_resources(StackName="kelpie")
    physical_ids = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources["StackResources"]}
    recorded = authorized_requests.merged(found, Stack(), physical_ids)
    authorized_requests.save(recorded)
    seen, known = {one.key for one in recorded}, {one.key for one in authorized_requests.load()}
    assert seen == known, (
        f"new: {sorted(map(str, seen - known))}; gone: {sorted(map(str, known - seen))}; if that is right: "
        f"cp {authorized_requests.RECORDED} {authorized_requests.GOLDEN} && python tests/permission_table.py"
    )
