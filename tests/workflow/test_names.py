"""Names and the limits of AWS that they keep; what the intrinsics make of them is tested with the definition."""

from __future__ import annotations

import pytest

from workflow import names


@pytest.mark.parametrize("name", ["a", "kelpie", "a-b", "A0", "a--b", "x" * 63])
def test_sagemaker_accepts(name: str) -> None:
    assert names.is_sagemaker_name(name)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a.b", "a:b", "ä", "a\n", "x" * 64, "a" + "-" * 62 + "b"])
def test_sagemaker_refuses(name: str) -> None:
    assert not names.is_sagemaker_name(name)


def test_a_job_name_is_made_of_project_run_and_attempt() -> None:
    assert names.longest_training_job_name("kelpie") == "kelpie-" + "f" * 32 + "-9"


def test_the_scalable_resource_is_the_variant_of_the_endpoint() -> None:
    assert names.scalable_resource("kelpie") == "endpoint/kelpie/variant/AllTraffic"


def test_the_serving_pointer_cannot_be_the_lock_of_another_project() -> None:
    assert "#" in names.serving_pointer("kelpie")
    assert not names.is_sagemaker_name(names.serving_pointer("kelpie"))
