from __future__ import annotations

import pytest
import torch

from training.distributed import DistributedError, Worker, hosts, tree_sum


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
