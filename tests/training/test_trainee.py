from __future__ import annotations

import pytest
import torch

from training.backbones import build
from training.checkpoint import decode, encode
from training.settings import Settings
from training.trainee import Trainee, learning_rate

CPU = torch.device("cpu")


def trainee(dtype: torch.dtype = torch.float32, **given: object) -> Trainee:
    settings = Settings(**({"weights": "package", "image_size": 32, "learning_rate": 0.01} | given))  # type: ignore[arg-type]
    model = build("efficientnet_lite0", 3, source="package", path=None, seed=0)
    return Trainee(settings, model, CPU, dtype)


def inputs(of: Trainee, count: int, seed: int = 1) -> torch.Tensor:
    """Features where only the head is trained, else pictures."""
    shape = (1280,) if of.head_only else (3, 32, 32)
    return torch.randn(count, *shape, generator=torch.manual_seed(seed))


def step(of: Trainee, seed: int = 1) -> None:
    x = inputs(of, 4, seed)
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
    assert one.no_sums(stop=False).shape == one.shard_sums(inputs(one, 1), torch.tensor([0]), 4, True).shape


def test_a_host_sends_four_bytes_per_parameter_and_eight_more_in_each_step_of_fine_tuning() -> None:
    sums = trainee(trainable="all").no_sums(stop=False)
    assert sums.numel() * sums.element_size() == 4 * (3_371_008 + 1280 * 3 + 3) + 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_goes_the_same_way_and_keeps_its_weights_in_float32(dtype: torch.dtype) -> None:
    exact, mixed = trainee(trainable="all"), trainee(dtype, trainable="all")
    x, y = inputs(exact, 4), torch.tensor([0, 1, 2, 0])
    scale = mixed.scaler.get_scale()
    assert (scale > 1) == (dtype == torch.float16)
    ours, theirs = (one.shard_sums(x, y, 4, stop=False)[:-2] for one in (mixed, exact))
    # The first step finds the scale too large for float16, and is left out; the scale is halved then.
    while not ours.isfinite().all():
        mixed.update(torch.cat([ours, torch.zeros(2)]), 0.01)
        assert mixed.scaler.get_scale() == scale / 2
        scale = mixed.scaler.get_scale()
        ours = mixed.shard_sums(x, y, 4, stop=False)[:-2]
    assert torch.equal(mixed.named["head.weight"], exact.named["head.weight"])
    assert torch.cosine_similarity(ours, theirs, dim=0) > 0.95
    step(mixed)
    assert not torch.equal(mixed.named["head.weight"], exact.named["head.weight"])
    assert all(parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in mixed.parameters)
    again = trainee(dtype, trainable="all")
    again.restore(decode(encode(mixed.state())))
    assert again.scaler.get_scale() == mixed.scaler.get_scale()


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
