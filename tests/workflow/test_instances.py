"""What an instance type is, told from its name, against every family that botocore knows."""

from __future__ import annotations

import re
from functools import cache

from botocore.session import Session

from workflow import instances
from workflow.execution_input import HOSTING_INSTANCE

# Source: EC2 user guide, "Instance store volumes", and the pages of the instance families, read 2026-11. p2 and p3 have
# none; g5, g6, g7 and p5 and later have NVMe disks without a d in the name.
LOCAL_STORAGE_FAMILIES = {
    "c5d",
    "c6gd",
    "dl1",
    "g4dn",
    "g5",
    "g6",
    "g6e",
    "g7",
    "g7e",
    "m5d",
    "m6gd",
    "p3dn",
    "p4d",
    "p4de",
    "p5",
    "p5e",
    "p5en",
    "p6-b200",
    "p6-b300",
    "p6e-gb200",
    "r5d",
    "r6gd",
    "r7gd",
    "trn1",
    "trn1n",
    "trn2",
}
GPU_FAMILIES = {
    "g4dn",
    "g5",
    "g6",
    "g6e",
    "g7",
    "g7e",
    "p2",
    "p3",
    "p3dn",
    "p4d",
    "p4de",
    "p5",
    "p5e",
    "p5en",
    "p6-b200",
    "p6-b300",
    "p6e-gb200",
}
ARM_FAMILIES = {"c6g", "c6gd", "c6gn", "c7g", "c8g", "m6g", "m6gd", "m8g", "r6g", "r6gd", "r7gd", "r8g"}


@cache
def types() -> frozenset[str]:
    model = Session().get_service_model("sagemaker")
    enums = [model.shape_for(name).enum for name in ("TrainingInstanceType", "ProductionVariantInstanceType")]
    return frozenset(instance_type for enum in enums for instance_type in enum)


def families(rule: object) -> set[str]:
    return {one.split(".")[1] for one in types() if rule(one)}  # type: ignore[operator]


def test_there_are_types_to_compare_with() -> None:
    assert len(types()) > 250


def test_local_storage_is_told_from_the_family() -> None:
    assert families(instances.has_local_storage) == LOCAL_STORAGE_FAMILIES


def test_a_gpu_an_arm_processor_and_other_accelerators_are_told_from_the_family() -> None:
    assert families(instances.has_gpu) == GPU_FAMILIES
    assert families(instances.is_arm) == ARM_FAMILIES
    assert families(instances.has_other_accelerator) == {"dl1", "inf1", "inf2", "trn1", "trn1n", "trn2"}
    assert families(instances.is_burstable) == {"t2", "t3"}


def test_an_endpoint_may_have_every_type_but_burstable_ones() -> None:
    for instance_type in types():
        assert (re.match(HOSTING_INSTANCE, instance_type) is None) == instances.is_burstable(instance_type)
