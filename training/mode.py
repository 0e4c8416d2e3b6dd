"""How a run trains: `features`, when only the head is trained, or `finetune`; in which numbers; and why."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from inference import runtime

SIMD_FLAGS = ("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
"""Flags that decide which instructions a library computes with, and so the last bits of a result."""


@dataclass(frozen=True)
class Mode:
    """`dtype` is what the backbone computes in, where that is safe; what is trained is float32 in any case."""

    name: str
    dtype: torch.dtype
    reason: str

    @property
    def is_features(self) -> bool:
        return self.name == "features"


def mode(trainable: str, device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> Mode:
    """The mode that follows from what is trainable, and the fastest numbers for it that the device has of its own.

    A CPU fine-tunes in float32: bfloat16 does not make it faster there.
    """
    dtype, why = _native(device, cpuinfo)
    if trainable == "head":
        reason = "trainable=head leaves the backbone as it is, so each picture goes through it once"
        return Mode("features", dtype, f"{reason}; {_name(dtype)}, because {why}")
    reason = "trainable=all changes the backbone, so each epoch goes through it again"
    if device.type == "cpu":
        return Mode("finetune", torch.float32, f"{reason}; float32, because no CPU fine-tunes faster in less")
    return Mode("finetune", dtype, f"{reason}; mixed with {_name(dtype)}, because {why}")


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The kind of CPU, as far as it decides bits."""
    flags = _flags(cpuinfo)
    return " ".join([platform.machine(), *(flag for flag in SIMD_FLAGS if flag in flags)])


def _flags(cpuinfo: Path) -> set[str]:
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return set(next((line.split() for line in text.splitlines() if line.startswith("flags")), []))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _native(device: torch.device, cpuinfo: Path) -> tuple[torch.dtype, str]:
    if device.type == "cuda":  # not run by this project so far: its machines have no GPU
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU has it"
        return torch.float16, "the GPU has no bfloat16"
    if feature := runtime.cpu_feature("bfloat16", cpuinfo):
        return torch.bfloat16, f"the CPU has {feature}"
    return torch.float32, f"the CPU has no {' or '.join(runtime.CPU_FEATURES['bfloat16'])}"
