from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.mode import mode

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("vendor", "flags", "dtype", "why"),
    [
        ("GenuineIntel", "fpu amx_bf16 avx512_bf16", torch.bfloat16, "the CPU has amx_bf16"),
        ("AuthenticAMD", "fpu avx512f avx512_bf16", torch.bfloat16, "the CPU has AuthenticAMD avx512_bf16"),
        (
            "GenuineIntel",
            "fpu avx512f avx512_bf16",
            torch.float32,
            "the CPU has no amx_bf16 or AuthenticAMD avx512_bf16",
        ),
        ("AuthenticAMD", "fpu avx2 avx512f", torch.float32, "the CPU has no amx_bf16 or AuthenticAMD avx512_bf16"),
    ],
)
def test_features_are_computed_in_the_fastest_numbers_of_the_cpu(
    tmp_path: Path, vendor: str, flags: str, dtype: torch.dtype, why: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    one = f"vendor_id : {vendor}\nflags : {flags}\n"
    cpuinfo.write_text(f"processor : 0\n{one}\nprocessor : 1\n{one}")
    found = mode("head", CPU, cpuinfo)
    assert (found.name, found.dtype) == ("features", dtype)
    assert found.reason.endswith(why)


def test_a_machine_that_does_not_say_what_it_has_computes_in_float32(tmp_path: Path) -> None:
    assert mode("head", CPU, tmp_path / "none").dtype == torch.float32


def test_a_cpu_fine_tunes_in_float32(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : amx_bf16\n")
    found = mode("all", CPU, cpuinfo)
    assert (found.name, found.dtype, found.is_features) == ("finetune", torch.float32, False)


@pytest.mark.parametrize(("has_it", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_a_gpu_computes_in_half_the_bits(
    monkeypatch: pytest.MonkeyPatch, trainable: str, has_it: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_it)
    assert mode(trainable, torch.device("cuda"), Path("none")).dtype == dtype
