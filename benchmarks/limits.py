"""What the machine can do at most: matrix products, JPEG decoding, memory bandwidth, page faults.

Other scripts call `measure` in their own run, so that a share of a limit is a share of the same hour's limit.
"""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.environment import usable_cores
from benchmarks.record import Row, Table

NAME = "limits"
ROUNDS = 5
_GEMM_SIDE = 2048
_BANDWIDTH_BYTES = 512 << 20
_FAULT_BYTES = 128 << 20


@dataclass(frozen=True)
class Limits:
    """Medians; `None` where the machine or the library has no such product."""

    gemm_f32_gflops_1: float
    gemm_f32_gflops_all: float
    gemm_bf16_gflops_1: float | None
    gemm_bf16_gflops_all: float | None
    gemm_int8_gops_1: float | None
    gemm_int8_gops_all: float | None
    jpeg_decode_per_second_all: float
    """Pictures of `jpeg_megapixels` decoded to RGB by Pillow, one thread a core."""
    jpeg_megapixels: float
    memory_gb_per_second_1: float
    memory_gb_per_second_all: float
    """Bytes read and written by copying; the caches are too small for the arrays."""
    page_fault_microseconds: float
    """Time of the first touch of a 4 KiB page."""

    def gemm(self, precision: str) -> float | None:
        """GFLOP/s (int8: GOP/s) of all cores for float32, bfloat16 or int8."""
        of = {
            "float32": self.gemm_f32_gflops_all,
            "bfloat16": self.gemm_bf16_gflops_all,
            "int8": self.gemm_int8_gops_all,
        }
        return of[precision]


def _per_second(work: Callable[[], object], amount: float, rounds: int) -> float:
    """The median of amount per second over `rounds`, after one warm-up."""
    work()
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        rates.append(amount / (time.perf_counter() - started))
    return statistics.median(rates)


def gemm(precision: str, threads: int, *, side: int = _GEMM_SIDE, rounds: int = ROUNDS) -> float | None:
    """GFLOP/s (int8: GOP/s) of a product of two square matrices; None where torch cannot do it here.

    Floating-point numbers are multiplied as matrices and as a 1x1 convolution, and the faster one counts: torch has
    another library for each, and on AMD's CPUs that of matrices is the slower one.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if precision == "int8":
            a_MK = torch.randint(-127, 127, (side, side), dtype=torch.int8)
            b_KN = torch.randint(-127, 127, (side, side), dtype=torch.int8)

            return _per_second(lambda: torch._int_mm(a_MK, b_KN), 2 * side**3 / 1e9, rounds)
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
        x_MK, y_KN = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
        x_NCHW, weight_OI11 = x_MK.view(1, side // 64, 64, side).permute(0, 3, 1, 2), y_KN[:, :, None, None]
        with torch.inference_mode():
            return max(
                _per_second(product, 2 * side**3 / 1e9, rounds)
                for product in (lambda: x_MK @ y_KN, lambda: torch.nn.functional.conv2d(x_NCHW, weight_OI11))
            )
    except (RuntimeError, NotImplementedError):
        return None
    finally:
        torch.set_num_threads(before)


def jpeg_decodes(picture: bytes, threads: int, *, count: int = 200, rounds: int = ROUNDS) -> float:
    """Pictures a second that Pillow decodes to RGB at full size, on so many threads."""

    def decode(_: int) -> None:
        with Image.open(BytesIO(picture)) as image:
            image.convert("RGB")

    with ThreadPoolExecutor(threads) as pool:
        return _per_second(lambda: list(pool.map(decode, range(count))), count, rounds)


def memory_bandwidth(threads: int, *, size: int = _BANDWIDTH_BYTES, rounds: int = ROUNDS) -> float:
    """GB/s of copying an array, counting what is read and what is written."""
    source = np.ones(size, dtype=np.uint8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return _per_second(lambda: list(pool.map(lambda p: np.copyto(p[1], p[0]), parts)), 2 * size / 1e9, rounds)


def page_fault_microseconds(*, size: int = _FAULT_BYTES, rounds: int = ROUNDS) -> float:
    """Microseconds that the first write to a page of fresh memory takes, less those of the second write."""

    def touch(pages: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> float:
        started = time.perf_counter()
        pages[:: mmap.PAGESIZE] = 1
        return time.perf_counter() - started

    costs = []
    for _ in range(rounds):
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as fresh:
            fresh.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page would hide 511 of 512 faults
            pages = np.frombuffer(fresh, dtype=np.uint8)
            costs.append((touch(pages) - touch(pages)) / (size // mmap.PAGESIZE) * 1e6)
            del pages  # else the map cannot be closed
    return statistics.median(costs)


def sample_jpeg(width: int = 640, height: int = 480) -> bytes:
    """A JPEG with structure at all scales, so that it costs what a photograph of its size costs."""
    random = np.random.default_rng(7)
    pixels = np.zeros((height, width, 3), dtype=np.float32)
    for side in (4, 16, 64, 256):
        small = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    content = BytesIO()
    Image.fromarray((pixels / 4).astype(np.uint8)).save(content, "JPEG", quality=88)
    return content.getvalue()


def limits(quick: bool = False) -> Limits:
    """Measure all of them: about ten seconds, or one in a smoke test."""
    cores = usable_cores()
    rounds = 1 if quick else ROUNDS
    side = 256 if quick else _GEMM_SIDE
    size = (8 << 20) if quick else _BANDWIDTH_BYTES
    picture = sample_jpeg()
    products = {
        (precision, threads): gemm(precision, threads, side=side, rounds=rounds)
        for precision in ("float32", "bfloat16", "int8")
        for threads in (1, cores)
    }
    return Limits(
        gemm_f32_gflops_1=products["float32", 1] or 0.0,
        gemm_f32_gflops_all=products["float32", cores] or 0.0,
        gemm_bf16_gflops_1=products["bfloat16", 1],
        gemm_bf16_gflops_all=products["bfloat16", cores],
        gemm_int8_gops_1=products["int8", 1],
        gemm_int8_gops_all=products["int8", cores],
        jpeg_decode_per_second_all=jpeg_decodes(picture, cores, count=20 if quick else 200, rounds=rounds),
        jpeg_megapixels=640 * 480 / 1e6,
        memory_gb_per_second_1=memory_bandwidth(1, size=size, rounds=rounds),
        memory_gb_per_second_all=memory_bandwidth(cores, size=size, rounds=rounds),
        page_fault_microseconds=page_fault_microseconds(size=size // 4, rounds=rounds),
    )


def table(measured: Limits) -> Table:
    """The limits as a table; each row has its unit in its name."""
    rows = []
    labels = {
        "gemm_f32_gflops_1": "matrix product float32, 1 thread, GFLOP/s",
        "gemm_f32_gflops_all": "matrix product float32, all cores, GFLOP/s",
        "gemm_bf16_gflops_1": "matrix product bfloat16, 1 thread, GFLOP/s",
        "gemm_bf16_gflops_all": "matrix product bfloat16, all cores, GFLOP/s",
        "gemm_int8_gops_1": "matrix product int8, 1 thread, GOP/s",
        "gemm_int8_gops_all": "matrix product int8, all cores, GOP/s",
        "jpeg_decode_per_second_all": f"JPEG of {measured.jpeg_megapixels:.2f} megapixels, all cores, pictures/s",
        "memory_gb_per_second_1": "memory copied, 1 thread, GB/s read and written",
        "memory_gb_per_second_all": "memory copied, all cores, GB/s read and written",
        "page_fault_microseconds": "first touch of a page of memory, microseconds",
    }
    values = asdict(measured)
    for key, label in labels.items():
        value = values[key]
        rows.append(Row(label, missing="torch cannot do it here") if value is None else Row(label, (value,)))
    return Table(
        "What this machine can do",
        "as named",
        "higher",
        tuple(rows),
        note="Products of torch: of matrices or as a 1x1 convolution, whichever is faster. Decoding of Pillow.",
    )


def measure(quick: bool, _folder: Path) -> list[Table]:
    """The script `limits`."""
    return [table(limits(quick))]
