from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.prune_versions import handler as prune_versions
from lambdas.prune_versions.handler import InvalidRetention, PruneFailed, candidates, handler


@pytest.fixture
def prune(sagemaker: Any, aws: Any, lock_table: Any, context: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prune the group `kelpie`, keeping so many versions."""
    monkeypatch.setenv("LOCK_TABLE", "kelpie-lock")
    monkeypatch.setattr(prune_versions, "client", lambda service: sagemaker if service == "sagemaker" else aws(service))
    event = {"project": "kelpie", "model_package_group": "kelpie", "endpoint_name": "kelpie"}
    return lambda keep: handler({**event, "versions_to_keep": keep}, context)


def test_the_newest_versions_are_kept(prune: Any, sagemaker: Any) -> None:
    arns = [sagemaker.make_package() for _ in range(12)]
    result = prune(3)
    assert result == {"deleted": arns[8::-1], "kept": arns[:8:-1]}
    assert sorted(sagemaker.backend.model_packages) == sorted(arns[9:])


def test_nothing_is_deleted_while_there_are_not_too_many(prune: Any, sagemaker: Any) -> None:
    arns = [sagemaker.make_package() for _ in range(3)]
    assert prune(3) == {"deleted": [], "kept": arns[::-1]}
    assert sagemaker.calls == []


def test_rejected_versions_never_push_out_an_approved_one(prune: Any, sagemaker: Any) -> None:
    approved = sagemaker.make_package()
    rejected = [sagemaker.make_package("Rejected") for _ in range(4)]
    assert prune(2)["kept"] == [*rejected[:1:-1], approved]


def test_the_version_that_serves_is_kept_whatever_the_registry_says(prune: Any, sagemaker: Any) -> None:
    serving = sagemaker.make_package("Rejected", "s3://artifacts/old/model.tar.gz")
    newer = [sagemaker.make_package("Rejected") for _ in range(2)]
    sagemaker.make_deployable("old", "s3://artifacts/old/model.tar.gz")
    sagemaker.make_endpoint("old")
    assert prune(1) == {"deleted": [newer[0]], "kept": [newer[1], serving]}


def test_the_promoted_version_and_the_rollback_target_are_kept(prune: Any, sagemaker: Any, lock_table: Any) -> None:
    target = sagemaker.make_package(model_data_url="s3://artifacts/target/model.tar.gz")
    promoted, old, newest = [sagemaker.make_package() for _ in range(3)]
    sagemaker.make_deployable("target", "s3://artifacts/target/model.tar.gz")
    lock_table(
        pk="kelpie#serving",
        endpoint_config="deleted-by-hand",
        previous_endpoint_config="target",
        model_package_arn=promoted,
    )
    assert prune(1) == {"deleted": [old], "kept": [newest, promoted, target]}


def test_nothing_is_deleted_when_it_is_unknown_what_serves(prune: Any, sagemaker: Any) -> None:
    for _ in range(3):
        sagemaker.make_package()
    sagemaker.fail["describe_endpoint"] = "AccessDeniedException"
    with pytest.raises(Exception, match="AccessDeniedException"):
        prune(1)
    assert sagemaker.calls == []


def test_one_version_that_cannot_be_deleted_does_not_save_the_others(prune: Any, sagemaker: Any) -> None:
    stuck, *_, newest = [sagemaker.make_package() for _ in range(4)]
    sagemaker.fail[f"delete_model_package {stuck}"] = "InternalFailure"
    with pytest.raises(PruneFailed, match=r"1 of 3 old versions .*kelpie/1: .*InternalFailure"):
        prune(1)
    assert sorted(sagemaker.backend.model_packages) == sorted([stuck, newest])


def test_a_version_that_is_gone_already_counts_as_deleted(prune: Any, sagemaker: Any) -> None:
    arns = [sagemaker.make_package() for _ in range(2)]

    def gone(self: Any, ModelPackageName: str) -> None:
        self.client.describe_model_package(ModelPackageName="no-such-package")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(sagemaker), "_delete_model_package", gone)
        assert prune(1)["deleted"] == [arns[0]]


@pytest.mark.parametrize("keep", [0, -1, "3", None, True, 2.5])
def test_a_retention_that_is_no_positive_integer_deletes_nothing(prune: Any, sagemaker: Any, keep: Any) -> None:
    sagemaker.make_package()
    with pytest.raises(InvalidRetention, match=r"retention\.versions_to_keep"):
        prune(keep)
    assert sagemaker.calls == []


@given(st.lists(st.sampled_from(["Approved", "Rejected", "PendingManualApproval"])), st.integers(1, 5))
def test_of_each_status_the_newest_stay(statuses: list[str], keep: int) -> None:
    versions = [(f"arn/{number}", number, status) for number, status in enumerate(statuses)][::-1]
    old = candidates(versions, keep)
    for status in set(statuses):
        arns = [arn for arn, _, its_status in versions if its_status == status]
        assert [arn for arn in arns if arn not in old] == arns[:keep]
