from __future__ import annotations

import pytest
import torch

from training.backbones import build
from training.checkpoint import decode, encode
from training.settings import Settings
from training.trainee import Trainee, learning_rate

CPU = torch.device("cpu")


def trainee(**given: object) -> Trainee:
    settings = Settings(**({"weights": "package", "image_size": 32, "learning_rate": 0.01} | given))  # type: ignore[arg-type]
    model = build("efficientnet_lite0", 3, source="package", path=None, seed=0)
    return Trainee(settings, model, CPU)


def step(of: Trainee, seed: int = 1) -> None:
    x = torch.randn(4, 3, 32, 32, generator=torch.manual_seed(seed))
    of.update(of.shard_sums(x, torch.tensor([0, 1, 2, 0]), 4, stop=False), 0.01)


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_a_step_changes_what_is_trained_and_never_batch_norm_statistics(trainable: str) -> None:
    one = trainee(trainable=trainable)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    step(one)
    changed = {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"head.weight", "head.bias"} <= changed
    assert any(name.startswith("backbone.") for name in changed) == (trainable == "all")
    assert not any("running_" in name for name in changed)


def test_the_shards_of_a_batch_add_up_to_the_gradient_of_the_whole() -> None:
    one = trainee(trainable="all")
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    whole = one.shard_sums(x, y, 4, stop=False)
    parts = one.shard_sums(x[:3], y[:3], 4, stop=False) + one.shard_sums(x[3:], y[3:], 4, stop=False)
    assert torch.linalg.vector_norm(whole - parts) < 1e-4 * torch.linalg.vector_norm(whole)


def test_a_stop_request_rides_along_with_the_gradients() -> None:
    one = trainee()
    assert one.no_sums(stop=True)[-1] == 1
    assert one.no_sums(stop=False).shape == one.shard_sums(torch.zeros(1, 3, 32, 32), torch.tensor([0]), 4, True).shape


def test_a_restored_trainee_goes_on_exactly_where_the_other_stopped() -> None:
    first, second = trainee(), trainee()
    step(first, 1)
    second.restore(decode(encode(first.state())))
    step(first, 2)
    step(second, 2)
    assert all(torch.equal(first.named[name], second.named[name]) for name in first.named)


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    settings = Settings(learning_rate=1.0)
    rates = [learning_rate(settings, s, 100) for s in range(100)]
    assert rates[0] == 0.2
    assert max(rates) == 1.0 == rates[5]
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 <= rates[-1] < 0.01
