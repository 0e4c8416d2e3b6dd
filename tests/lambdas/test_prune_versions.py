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
    assert result == {"deleted": arns[8::-1], "kept": arns[:8:-1], "deleted_names": []}
    assert sorted(sagemaker.backend.model_packages) == sorted(arns[9:])


def test_nothing_is_deleted_while_there_are_not_too_many(prune: Any, sagemaker: Any) -> None:
    arns = [sagemaker.make_package() for _ in range(3)]
    assert prune(3) == {"deleted": [], "kept": arns[::-1], "deleted_names": []}
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
    assert prune(1) == {"deleted": [newer[0]], "kept": [newer[1], serving], "deleted_names": []}


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
    assert prune(1) == {"deleted": [old], "kept": [newest, promoted, target], "deleted_names": []}


def a_run(digit: str) -> str:
    return f"kelpie-{digit * 32}"


@pytest.fixture
def serving(sagemaker: Any, lock_table: Any) -> str:
    """The endpoint and the pointer: run f serves, run e served before it. Returns the version that serves."""
    for digit in "ef":
        sagemaker.make_deployable(a_run(digit))
    arn = sagemaker.make_package(model_data_url=f"s3://artifacts/{a_run('f')}/model.tar.gz", run="f" * 32)
    sagemaker.make_endpoint(a_run("f"))
    lock_table(
        pk="kelpie#serving",
        endpoint_config=a_run("f"),
        previous_endpoint_config=a_run("e"),
        model_package_arn=arn,
    )
    return str(arn)


def left(sagemaker: Any) -> tuple[list[str], list[str]]:
    return sorted(sagemaker.backend.endpoint_configs), sorted(model.model_name for model in models(sagemaker))


def models(sagemaker: Any) -> Any:
    return sagemaker.backend._models.values()


@pytest.mark.usefixtures("serving")
def test_models_and_configs_go_with_their_versions(prune: Any, sagemaker: Any) -> None:
    for digit in "123":
        sagemaker.make_deployable(a_run(digit))
        sagemaker.make_package(run=digit * 32)
    result = prune(2)
    assert result["deleted_names"] == [a_run("1")]
    assert left(sagemaker) == (kept := [a_run(digit) for digit in "23ef"], kept)


@pytest.mark.usefixtures("serving")
def test_what_a_rollback_hosted_goes_when_it_no_longer_serves(prune: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(a_run("a"))  # of an execution that registered nothing
    assert prune(3)["deleted_names"] == [a_run("a")]
    assert left(sagemaker) == (kept := [a_run("e"), a_run("f")], kept)


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize(
    "name", ["kelpie-by-hand", f"kelpie-{'A' * 32}", f"kelpie-{'a' * 31}", f"kelpie-{'a' * 33}", f"x-kelpie-{'a' * 32}"]
)
def test_what_no_execution_of_this_project_made_is_never_touched(prune: Any, sagemaker: Any, name: str) -> None:
    sagemaker.make_deployable(name)
    assert prune(1)["deleted_names"] == []
    assert name in sagemaker.backend.endpoint_configs


def test_a_model_that_the_serving_config_uses_under_another_name_stays(
    prune: Any, sagemaker: Any, lock_table: Any
) -> None:
    sagemaker.make_deployable(a_run("a"))
    variant = {"VariantName": "AllTraffic", "ModelName": a_run("a"), "InitialInstanceCount": 1}
    sagemaker.client.create_endpoint_config(
        EndpointConfigName="made-by-hand", ProductionVariants=[{**variant, "InstanceType": "ml.c5.large"}]
    )
    sagemaker.make_endpoint("made-by-hand")
    assert prune(1)["deleted_names"] == []
    assert [model.model_name for model in models(sagemaker)] == [a_run("a")]


def test_without_an_endpoint_and_a_pointer_no_model_is_deleted(prune: Any, sagemaker: Any) -> None:
    sagemaker.make_deployable(a_run("a"))
    assert prune(1)["deleted_names"] == []
    assert sagemaker.calls == []


@pytest.mark.usefixtures("serving")
def test_a_model_outlives_a_config_that_cannot_be_deleted(prune: Any, sagemaker: Any) -> None:
    for digit in "ab":
        sagemaker.make_deployable(a_run(digit))
    sagemaker.fail[f"delete_endpoint_config {a_run('a')}"] = "InternalFailure"
    with pytest.raises(PruneFailed, match=rf"first {a_run('a')}: .*InternalFailure"):
        prune(1)
    kept = [a_run(digit) for digit in "aef"]
    assert left(sagemaker) == (kept, kept)


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
    with pytest.raises(PruneFailed, match=r"1 old versions, .*kelpie/1: .*InternalFailure"):
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
