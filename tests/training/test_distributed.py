from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.distributed import DistributedError, Worker, hosts, tree_sum

ROOT = Path(__file__).parents[2]


def worker(rank: int, world_size: int) -> Worker:
    return Worker("algo-1", rank, world_size, torch.device("cpu"))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 5, 8])
def test_each_shard_belongs_to_one_process(world_size: int) -> None:
    workers = [worker(rank, world_size) for rank in range(world_size)]
    shards = [shard for w in workers for shard in w.shards]
    assert shards == list(range(workers[0].shard_count))


def test_one_two_and_four_processes_add_up_to_the_same_bits() -> None:
    shards = list(
        torch.randn(4, 10_000, generator=torch.manual_seed(1)) * torch.tensor([1e-6, 1e3, 1.0, 1e-3])[:, None]
    )
    totals = []
    for world_size in (1, 2, 4):
        parts = [tree_sum([shards[i] for i in worker(rank, world_size).shards]) for rank in range(world_size)]
        totals.append(tree_sum(parts))
    assert torch.equal(totals[0], totals[1])
    assert torch.equal(totals[0], totals[2])


def test_hosts_come_from_the_resource_config() -> None:
    group = hosts({"SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-2", "SM_NUM_GPUS": "0"})
    assert (group.names, group.current, group.gpu_count) == (("algo-1", "algo-2"), "algo-2", 0)


def test_a_host_outside_the_resource_config_is_refused() -> None:
    with pytest.raises(DistributedError, match=r"'algo-3'.*not in SM_HOSTS"):
        hosts({"SM_HOSTS": '["algo-1", "algo-2"]', "SM_CURRENT_HOST": "algo-3", "SM_NUM_GPUS": "0"})


MEETING = """
import sys, time, torch
from training import distributed
from training.distributed import Hosts, connected, gather_rows

distributed.TIMEOUT_SECONDS, distributed.START_TIMEOUT_SECONDS = 2, 60
rank = int(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with connected(Hosts(("a", "b"), "ab"[rank], 0), 0, {}) as worker:
        print("sum", int(gather_rows(worker, torch.ones(1)).item()), flush=True)
        sys.stdin.readline() if rank else None  # the second host hangs
        started = time.monotonic()
        gather_rows(worker, torch.ones(1))
except distributed.DistributedError as error:
    print(f"waited {time.monotonic() - started:.1f}", error, flush=True)
"""


def test_a_host_may_start_late_but_one_that_hangs_later_is_given_up() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    more = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        processes = []
        for rank in "01":
            argv = [sys.executable, "-c", MEETING, rank]
            process = subprocess.Popen(argv, cwd=ROOT, env=os.environ | more, stdin=pipe, stdout=pipe, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        first, second = processes
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2  # type: ignore[union-attr]
        first.stdin.write("\n")  # type: ignore[union-attr]
        first.stdin.flush()  # type: ignore[union-attr]
        time.sleep(3)  # longer than a step may take
        second.stdin.write("\n")  # type: ignore[union-attr]
        second.stdin.flush()  # type: ignore[union-attr]
        assert [process.stdout.readline() for process in processes] == ["sum 2\n"] * 2  # type: ignore[union-attr]
        answer = first.stdout.readline()  # type: ignore[union-attr]
        assert "lost contact with another host while collecting results" in answer
        assert 1.5 < float(answer.split()[1]) < 20
