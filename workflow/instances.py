"""What an instance type of SageMaker is, told from its name: `ml.<family>.<size>`.

Needs no AWS library. A test compares these rules with every family of botocore's model.
"""

from __future__ import annotations

import re

LOCAL_STORAGE = (
    r"^ml\.([a-z]+[0-9]+[a-z]*d[a-z]*|g[5-9][a-z]*|gr[6-9][a-z]*|p[5-9][a-z0-9-]*|trn[0-9][a-z0-9]*|dl1|i[0-9][a-z]*)\."
)
"""An instance type with NVMe disks of its own, which its hardware encrypts: SageMaker refuses a KMS key for them.

Source: SageMaker API reference, ResourceConfig.VolumeKmsKeyId and CreateEndpointConfig.KmsKeyId; EC2 user guide,
instance store volumes; read 2026-11.
"""

_BURSTABLE = re.compile(r"^ml\.t[0-9]")
_GPU = re.compile(r"^ml\.(g|gr|p)[0-9]")
_OTHER_ACCELERATOR = re.compile(r"^ml\.(inf|trn|dl)[0-9]")
_ARM = re.compile(r"^ml\.[a-z]+[0-9]+g[den]*\.")


def has_local_storage(instance_type: str) -> bool:
    """Whether its disks take no KMS key."""
    return re.match(LOCAL_STORAGE, instance_type) is not None


def is_burstable(instance_type: str) -> bool:
    """Whether its processor has credits, so that an endpoint on it cannot scale automatically."""
    return _BURSTABLE.match(instance_type) is not None


def has_gpu(instance_type: str) -> bool:
    """Whether it has a GPU, which only an image for GPUs uses."""
    return _GPU.match(instance_type) is not None


def has_other_accelerator(instance_type: str) -> bool:
    """Whether it has an accelerator that PyTorch needs an image of its own for: Inferentia, Trainium, Gaudi."""
    return _OTHER_ACCELERATOR.match(instance_type) is not None


def is_arm(instance_type: str) -> bool:
    """Whether its processor is a Graviton: an image for x86_64 does not start on it."""
    return _ARM.match(instance_type) is not None
