"""The processes of a job and what they say to each other: gloo between CPUs, NCCL between GPUs.

A job has one process per GPU, or one per host without GPUs. Sums are made in an order that does not depend on the
number of processes (`sum_in_order`), so 1, 2 and 4 of them get the same bits.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

START_TIMEOUT_SECONDS = 1800
"""How long a process waits for the others to start: hosts begin minutes apart, as their downloads take longer or
shorter."""
TIMEOUT_SECONDS = 180
"""How long a process waits for the others once all have started, at any step. A host that dies is noticed at once (its
connections close); this bounds a host that hangs."""
SHARDS = 4
"""Parts that a global batch is cut into, whatever the number of processes, as long as that divides it."""
DEFAULT_PORT = "29500"


class DistributedError(RuntimeError):
    """The other processes do not answer, or do not agree."""


@dataclass(frozen=True)
class Worker:
    """This process among the processes of the job."""

    host: str
    rank: int
    world_size: int
    device: torch.device

    @property
    def shard_count(self) -> int:
        return SHARDS if SHARDS % self.world_size == 0 else self.world_size

    @property
    def shards(self) -> range:
        """The shards of each global batch that are this process's."""
        own = self.shard_count // self.world_size
        return range(self.rank * own, (self.rank + 1) * own)


@dataclass(frozen=True)
class Hosts:
    """The hosts of the job, from the resource config."""

    names: tuple[str, ...]
    current: str
    gpu_count: int
    """GPUs on this host; every host has as many."""


def hosts(environment: Mapping[str, str]) -> Hosts:
    """Read SM_HOSTS (JSON list), SM_CURRENT_HOST and SM_NUM_GPUS; without them, this machine alone."""
    names = tuple(json.loads(environment.get("SM_HOSTS", "[]"))) or ("localhost",)
    current = environment.get("SM_CURRENT_HOST", names[0])
    if current not in names:
        raise DistributedError(f"SM_CURRENT_HOST is {current!r}, which is not in SM_HOSTS {list(names)}")
    gpu_count = int(environment["SM_NUM_GPUS"]) if "SM_NUM_GPUS" in environment else torch.cuda.device_count()
    return Hosts(names, current, gpu_count)


@contextlib.contextmanager
def connected(hosts: Hosts, local_rank: int, environment: Mapping[str, str]) -> Iterator[Worker]:
    """Join the processes of the job for the time of the block.

    Environment: RANK, WORLD_SIZE and LOCAL_RANK (as torchrun sets them) take precedence over the hosts; MASTER_ADDR
    (default: the first host), MASTER_PORT; SM_NETWORK_INTERFACE_NAME.
    """
    per_host = max(1, hosts.gpu_count)
    rank = int(environment.get("RANK", hosts.names.index(hosts.current) * per_host + local_rank))
    world_size = int(environment.get("WORLD_SIZE", len(hosts.names) * per_host))
    local_rank = int(environment.get("LOCAL_RANK", local_rank))
    device = torch.device("cuda", local_rank) if hosts.gpu_count else torch.device("cpu")
    worker = Worker(hosts.current, rank, world_size, device)
    if world_size == 1:
        yield worker
        return
    os.environ.setdefault("MASTER_ADDR", hosts.names[0])
    os.environ.setdefault("MASTER_PORT", DEFAULT_PORT)
    if interface := environment.get("SM_NETWORK_INTERFACE_NAME"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    if hosts.gpu_count:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if hosts.gpu_count else "gloo"
    short = timedelta(seconds=TIMEOUT_SECONDS)
    with _talking("waiting for the other hosts to start"):
        meeting = rendezvous(
            "env://", rank=rank, world_size=world_size, timeout=timedelta(seconds=START_TIMEOUT_SECONDS)
        )
        store, _, _ = next(meeting)  # returns when all are there
        store.set_timeout(short)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=short)
    yield worker
    # After an error there is nobody to say goodbye to: leaving at once is what tells the others.
    with _talking("leaving the other hosts"):
        dist.barrier()
        dist.destroy_process_group()


@contextlib.contextmanager
def _talking(doing: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DistributedError(
            f"lost contact with another host while {doing}; its log says why it ended ({first_line[:300]})"
        ) from error


def tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """Add neighbours, then neighbours of these, and so on: ((a + b) + (c + d)) for four."""
    level = list(parts)
    while len(level) > 1:
        pairs = [level[i] + level[i + 1] for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def sum_in_order(worker: Worker, own: Sequence[Tensor]) -> Tensor:
    """Sum over all shards of all processes; `own` has one tensor for each of `worker.shards`."""
    return tree_sum(gather_parts(worker, tree_sum(own), "adding up gradients"))


def gather_parts(worker: Worker, part: Tensor, doing: str) -> list[Tensor]:
    """Every process's part, by rank, on all of them; the parts have one shape and type."""
    if worker.world_size == 1:
        return [part]
    parts = [torch.empty_like(part) for _ in range(worker.world_size)]
    with _talking(doing):
        dist.all_gather(parts, part)
    return parts


def is_any(worker: Worker, flag: bool, doing: str) -> bool:
    """Whether the flag is set on any process."""
    return any(bool(other) for other in gather_parts(worker, torch.tensor([float(flag)]), doing))


def gather_rows(worker: Worker, rows: Tensor) -> Tensor:
    """Fill each process's own rows in: every row must be zero on all processes but one."""
    if worker.world_size > 1:
        with _talking("collecting results"):
            dist.all_reduce(rows)
    return rows


def broadcast_bytes(worker: Worker, content: bytes | None, doing: str) -> bytes:
    """Rank 0's bytes on every process; disks are not shared between hosts."""
    if worker.world_size == 1:
        return content or b""
    size = torch.tensor([len(content or b"")])
    with _talking(doing):
        dist.broadcast(size, src=0)
        if not size.item():
            return b""
        buffer = torch.empty(int(size.item()), dtype=torch.uint8)
        if content:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        dist.broadcast(buffer, src=0)
    return buffer.numpy().tobytes()


def require_agreement(worker: Worker, what: str, sha256: str) -> None:
    """Check that every process has the same hash.

    Raises:
        DistributedError: they differ.
    """
    if worker.world_size == 1:
        return
    mine = torch.frombuffer(bytearray(bytes.fromhex(sha256)), dtype=torch.uint8)
    all_of_them = [torch.empty_like(mine) for _ in range(worker.world_size)]
    with _talking(f"comparing {what}"):
        dist.all_gather(all_of_them, mine)
    different = [rank for rank, other in enumerate(all_of_them) if not torch.equal(other, all_of_them[0])]
    if different:
        raise DistributedError(f"the hosts have different {what}: rank {different[0]} does not agree with rank 0")
