"""Features: computed once for each picture, whatever happens, and the same bits whoever computes them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference.contract import InputContract
from training import data, engine, features
from training.backbones import build
from training.data import Picture, scan
from training.distributed import Worker
from training.engine import Compute
from training.features import Features
from training.reading import BLOCK

ROOT = Path(__file__).parents[2]
INPUT = InputContract(32, 36, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CPU = torch.device("cpu")
ALONE = Worker("localhost", 0, 1, CPU)
BLOCKS = 5


class Work:
    """What was done: decodes by picture, and how many pictures went through the backbone, in blocks of which sizes."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        self.backbone = backbone
        self.decoded: Counter[str] = Counter()
        self.computed: list[int] = []
        self.threads: set[int] = set()
        self.guard = threading.Lock()

    def read(self, picture: Picture) -> NDArray[np.uint8]:
        with self.guard:
            self.decoded[str(picture.path)] += 1
            self.threads.add(torch.get_num_threads())
        return data.pixels(picture, INPUT)

    def engine(self, dtype: torch.dtype, threads: int) -> Compute:
        compute = engine.of(self.backbone, INPUT, dtype, CPU, threads)

        def counted(pixels_NHWC: torch.Tensor) -> torch.Tensor:
            with self.guard:
                self.computed.append(len(pixels_NHWC))
            return compute(pixels_NHWC)

        return counted

    def fill(
        self,
        found: Features,
        folder: Path,
        *,
        threads: int = 2,
        interval: int = 2,
        interrupted_after: int | None = None,
    ) -> list[tuple[int, bool]]:
        """Restore, and compute what is missing; returns the rounds."""
        found.restore(folder)
        rounds: list[tuple[int, bool]] = []
        compute = self.engine(found.dtype, threads)
        interrupted = lambda: len(rounds) == interrupted_after  # noqa: E731
        for done, stop in found.computed(self.read, compute, folder, threads, interval, interrupted):
            rounds.append((done, stop))
        return rounds


@pytest.fixture
def work(backbone: torch.nn.Module) -> Work:
    return Work(backbone)


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    return build("efficientnet_lite0", 3, source="package", path=None, seed=0).backbone


@pytest.fixture
def some(pictures: Path) -> list[Picture]:
    """70 entries of fewer files: five blocks, the last of them not full."""
    train = scan(pictures).train
    return [replace(train[i % len(train)], sha256=f"{i:064x}") for i in range(4 * BLOCK + 6)]


Make = Callable[..., Features]


@pytest.fixture
def make(some: list[Picture], tmp_path: Path) -> Make:
    def features_of(pictures: list[Picture] = some, input: InputContract = INPUT, **given: object) -> Features:
        return Features(
            str(given.get("engine", "openvino")),
            1280,
            pictures,
            input,
            ALONE,
            scratch=tmp_path / "scratch",
            dtype=given.get("dtype", torch.float32),  # type: ignore[arg-type]
        )

    return features_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_picture_is_decoded_once_and_goes_through_the_backbone_once(
    make: Make, work: Work, tmp_path: Path
) -> None:
    found = make()
    assert work.fill(found, tmp_path / "kept") == [(done, False) for done in range(1, BLOCKS + 1)]
    assert sum(work.decoded.values()) == len(found.pictures)
    assert sorted(work.computed) == [6, *[BLOCK] * (BLOCKS - 1)]
    assert work.threads == {1}
    assert found.own == list(range(len(found.pictures)))


def test_what_was_kept_is_not_computed_again(make: Make, work: Work, tmp_path: Path) -> None:
    first = make()
    work.fill(first, tmp_path / "kept")
    before = (len(work.computed), work.decoded.total())
    second = make()
    assert work.fill(second, tmp_path / "kept") == []
    assert (len(work.computed), work.decoded.total()) == before
    assert second.done == BLOCKS
    assert torch.equal(first.rows_ND, second.rows_ND)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_interruption_in_the_middle_costs_no_block(make: Make, work: Work, tmp_path: Path, after: int) -> None:
    whole = make()
    work.fill(whole, tmp_path / "whole")
    first = make()
    rounds = work.fill(first, tmp_path / "kept", interrupted_after=after)
    assert rounds[-1] == (after + 1, True)
    work.decoded.clear()
    second = make()
    second.restore(tmp_path / "kept")
    assert second.done == after + 1
    work.fill(second, tmp_path / "kept")
    assert second.own == list(range((after + 1) * BLOCK, len(second.pictures)))
    assert work.decoded.total() == len(second.own)
    assert torch.equal(second.rows_ND, whole.rows_ND)


def test_a_host_that_is_killed_loses_fewer_blocks_than_the_interval(make: Make, work: Work, tmp_path: Path) -> None:
    found = make()
    rounds = found.computed(work.read, work.engine(torch.float32, 1), tmp_path, 1, 2, lambda: False)
    for _ in range(3):
        next(rounds)
    rounds.close()
    again = make()
    again.restore(tmp_path)
    assert again.done == 2


def test_a_damaged_shard_is_computed_again_and_no_other(
    make: Make, work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make()
    work.fill(first, tmp_path / "kept")
    shards = [f"features-{block:09d}.ckpt" for block in (0, 2, 4)]
    assert names(tmp_path / "kept") == shards
    (tmp_path / "kept" / shards[1]).write_bytes(b"half of it")
    second = make()
    work.fill(second, tmp_path / "kept")
    assert f"{shards[1]} is damaged" in capsys.readouterr().out
    assert second.own == list(range(2 * BLOCK, 4 * BLOCK))
    assert torch.equal(first.rows_ND, second.rows_ND)
    assert names(tmp_path / "kept") == shards


def test_features_belong_to_content_engine_transform_and_numbers(
    make: Make, work: Work, some: list[Picture], tmp_path: Path
) -> None:
    work.fill(make(), tmp_path)

    def found_of(**given: object) -> int:
        other = make(**given)
        other.restore(tmp_path)
        return other.done

    other_content = [replace(some[0], sha256="f" * 64), *some[1:]]
    other_names = [replace(picture, path=picture.path.with_name("other.png")) for picture in some]
    assert found_of() == BLOCKS
    assert found_of(pictures=other_names) == BLOCKS
    assert found_of(pictures=other_content) == BLOCKS - 1
    assert found_of(engine="other weights, another library or another kind of CPU") == 0
    assert found_of(input=replace(INPUT, resize_size=40)) == 0
    assert found_of(dtype=torch.bfloat16) == 0


def test_the_bits_depend_on_neither_threads_nor_on_which_process_computes_a_block(
    make: Make, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(dtype=torch.bfloat16)
    work.fill(whole, tmp_path / "one", threads=1)
    for rank in (0, 1):
        part = make(dtype=torch.bfloat16)
        part.worker = Worker("algo", rank, 2, CPU)
        sent: list[torch.Tensor] = []

        def both(_worker: Worker, mine: torch.Tensor, _doing: str, sent: list[torch.Tensor] = sent) -> object:
            sent.append(mine)
            return [mine, mine]

        monkeypatch.setattr(features, "gather_parts", both)
        for _ in part.computed(work.read, work.engine(torch.bfloat16, 3), tmp_path / str(rank), 3, 2, lambda: False):
            pass
        assert part.own == [i for block in part.blocks[rank::2] for i in block]
        for mine, block in zip(sent, part.blocks[rank::2], strict=False):
            assert torch.equal(mine[: len(block)], whole.rows_ND[block.start : block.stop])
        # two bytes a number, and one row more for the flag
        assert {mine.numel() * mine.element_size() for mine in sent} == {(BLOCK + 1) * 1280 * 2}
    assert not (tmp_path / "1").exists()


def test_bfloat16_features_say_what_float32_ones_say(make: Make, work: Work, tmp_path: Path) -> None:
    exact, fast = make(), make(dtype=torch.bfloat16)
    work.fill(exact, tmp_path / "exact")
    work.fill(fast, tmp_path / "fast")
    everything = range(len(exact.pictures))
    assert fast.rows(everything).dtype == torch.float32
    assert torch.cosine_similarity(exact.rows(everything), fast.rows(everything)).min() > 0.995


def test_features_are_what_the_classifier_itself_computes(
    make: Make, work: Work, backbone: torch.nn.Module, tmp_path: Path
) -> None:
    found = make()
    work.fill(found, tmp_path)
    x_NCHW = torch.from_numpy(data.plain(found.pictures[20], INPUT))[None]
    with torch.no_grad():
        expected = backbone(x_NCHW)
    assert torch.allclose(found.rows([20]), expected, atol=1e-4)


def test_processes_decode_for_a_gpu_bring_the_bits_that_threads_do_and_end(pictures: Path, tmp_path: Path) -> None:
    # Processes talk over Unix sockets, which tests may not, so they have a program of their own.
    code = """
import sys
from pathlib import Path
import psutil
import torch
from inference.contract import InputContract
from training import data, engine
from training.backbones import build
from training.distributed import Worker
from training.features import Features

torch.set_num_threads(1)
train = data.scan(Path(sys.argv[1])).train
input = InputContract(32, 36, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
backbone = build("efficientnet_lite0", 3, source="package", path=None, seed=0).backbone
compute = engine.by_torch(backbone, input, torch.float32, torch.device("cpu"), 2)

def computed(device, name, interrupted=lambda: False):
    worker = Worker("localhost", 0, 1, torch.device(device))
    folder = Path(sys.argv[2]) / name
    found = Features("torch", 1280, train, input, worker, scratch=folder, dtype=torch.float32)
    read = lambda picture: data.pixels(picture, input)
    for done, stop in found.computed(read, compute, folder, 2, 1, interrupted):
        yield found, done, stop

*_, (by_threads, done, _) = computed("cpu", "threads")
*_, (by_processes, also_done, _) = computed("cuda", "processes")
print(done, also_done, torch.equal(by_threads.rows_ND, by_processes.rows_ND), float(by_threads.rows_ND.std()) > 0.01)
print([(done, stop) for _, done, stop in computed("cuda", "interrupted", lambda: True)], psutil.Process().children())
"""
    argv = [sys.executable, "-c", code, str(pictures), str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["2 2 True True", "[(1, True)] []"], done.stderr


def test_a_gpu_gets_blocks_from_processes_and_a_cpu_from_threads(
    make: Make, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []

    def recorded(name: str) -> Callable[..., Generator[torch.Tensor]]:
        def blocks(_pictures: object, wanted: list[range], *_: object) -> Generator[torch.Tensor]:
            used.append(name)
            yield from (torch.zeros(len(block), 1280) for block in wanted)

        return blocks

    for name in ("by_threads", "by_processes"):
        monkeypatch.setattr(features, name, recorded(name))
    for device in ("cpu", "cuda"):
        found = make()
        found.worker = Worker("localhost", 0, 1, torch.device(device))
        work.fill(found, tmp_path / device)
        assert not found.missing
    assert used == ["by_threads", "by_processes"]


def test_nothing_is_left_in_the_scratch_folder(make: Make, tmp_path: Path) -> None:
    make()
    assert names(tmp_path / "scratch") == []
    shutil.rmtree(tmp_path / "scratch")
