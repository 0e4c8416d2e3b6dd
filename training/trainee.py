"""The model while it is trained: what is trained of it, a step's gradients and update, its score on valid pictures.

Shape suffixes: N pictures, C channels, H/W size, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.backbones import Classifier, folded
from training.data import Picture
from training.distributed import Worker, gather_rows
from training.settings import Settings

WARM_UP_SHARE = 0.05
WEIGHT_DECAY = 0.01
VALID_BATCH = 16


def to_batch(pictures_CHW: Sequence[NDArray[np.float32]], device: torch.device) -> Tensor:
    """Stack to x_NCHW, channels last in memory."""
    x_NCHW = torch.from_numpy(np.stack(pictures_CHW))
    return x_NCHW.to(device, memory_format=torch.channels_last)


class Trainee:
    """The classifier, which of its parameters are trained, and the optimizer."""

    def __init__(self, settings: Settings, model: Classifier, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.model = model.to(device).to(memory_format=torch.channels_last)
        head_only = settings.trainable == "head"
        self.model.backbone.requires_grad_(not head_only)
        self.frozen: nn.Module | None = folded(self.model.backbone) if head_only else None
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=WEIGHT_DECAY, foreach=True
        )

    def logits(self, x_NCHW: Tensor) -> Tensor:
        if self.frozen is None:
            features_ND = self.model.backbone(x_NCHW)
        else:
            with torch.no_grad():
                features_ND = self.frozen(x_NCHW)
        logits_NK: Tensor = self.model.head(features_ND)
        return logits_NK

    def shard_sums(self, x_NCHW: Tensor, y_N: Tensor, batch_count: int, stop: bool) -> Tensor:
        """One shard's part of the step, in one vector: the gradients of all parameters, the loss, the stop flag."""
        loss = F.cross_entropy(self.logits(x_NCHW), y_N, reduction="sum") / batch_count
        gradients = torch.autograd.grad(loss, self.parameters)
        rest = torch.stack([loss.detach(), torch.full_like(loss, float(stop)).detach()])
        return torch.cat([*(g.flatten() for g in gradients), rest])

    def no_sums(self, stop: bool) -> Tensor:
        """As `shard_sums`, for a shard without pictures."""
        sums = torch.zeros(sum(p.numel() for p in self.parameters) + 2, device=self.device)
        sums[-1] = float(stop)
        return sums

    def update(self, sums: Tensor, learning_rate: float) -> None:
        gradients = torch.split(sums[:-2], [p.numel() for p in self.parameters])
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.view_as(parameter)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        parameters = {name: p.detach().cpu() for name, p in self.named.items()}
        return {"parameters": parameters, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])


def learning_rate(settings: Settings, step: int, total_steps: int) -> float:
    """A linear warm-up, then a cosine to zero; steps count from zero."""
    warm_up = max(1, round(total_steps * WARM_UP_SHARE))
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total_steps - warm_up)))


Load = Callable[[Sequence[Picture]], Iterable[NDArray[np.float32]]]


class Validation:
    """Loss and accuracy on the valid pictures; with a frozen backbone their features are computed once."""

    def __init__(self, trainee: Trainee, worker: Worker, pictures: Sequence[Picture], load: Load) -> None:
        self.trainee, self.worker, self.count, self.load = trainee, worker, len(pictures), load
        self.own = pictures[worker.rank :: worker.world_size]
        self.features: list[Tensor] | None = None

    def _logits(self) -> Iterator[Tensor]:
        if self.features is not None:
            yield from (self.trainee.model.head(f_ND) for f_ND in self.features)
            return
        kept = []
        for start in range(0, len(self.own), VALID_BATCH):
            x_NCHW = to_batch(list(self.load(self.own[start : start + VALID_BATCH])), self.trainee.device)
            if self.trainee.frozen is None:
                yield self.trainee.model(x_NCHW)
            else:
                kept.append(self.trainee.frozen(x_NCHW))
                yield self.trainee.model.head(kept[-1])
        if self.trainee.frozen is not None:
            self.features = kept

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """(loss, accuracy), the same on every process."""
        rows = torch.zeros(self.count, 2, dtype=torch.float64)
        if self.own:
            logits_NK = torch.cat(list(self._logits())).cpu()
            labels_N = torch.tensor([picture.label for picture in self.own])
            right_N = logits_NK.argmax(dim=1) == labels_N
            losses_N = F.cross_entropy(logits_NK, labels_N, reduction="none")
            rows[self.worker.rank :: self.worker.world_size] = torch.stack([losses_N, right_N], dim=1).double()
        loss, accuracy = gather_rows(self.worker, rows).mean(dim=0).tolist()
        return loss, accuracy
