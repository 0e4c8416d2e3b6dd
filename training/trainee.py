"""The model while it is trained: what is trained of it, a step's gradients and update, its score on valid pictures.

Shape suffixes: N pictures, C channels, H/W size, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.backbones import Classifier
from training.distributed import Worker, gather_rows
from training.optimizer import AdamW
from training.settings import Settings

WARM_UP_SHARE = 0.05
WEIGHT_DECAY = 0.01
VALID_BATCH = 16


class Trainee:
    """The classifier, which of its parameters are trained, and the optimizer.

    Its input x is features x_ND where only the head is trained, and pictures x_NCHW where everything is.
    """

    def __init__(
        self, settings: Settings, model: Classifier, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        """`dtype`: what layers compute in where that is safe, if everything is trained; weights stay float32."""
        self.settings, self.device, self.dtype = settings, device, dtype
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.head_only = settings.trainable == "head"
        self.model.backbone.requires_grad_(not self.head_only)
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.parameters = list(self.named.values())
        self.optimizer = AdamW(self.parameters, weight_decay=WEIGHT_DECAY)
        # float16 has no room for small gradients, so the loss is scaled; the other types do without.
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16 and not self.head_only)

    def logits(self, x: Tensor) -> Tensor:
        if self.head_only:
            logits_NK: Tensor = self.model.head(x)
            return logits_NK
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits_NK = self.model(x)
        return logits_NK.float()

    def shard_sums(self, x: Tensor, y_N: Tensor, batch_count: int, stop: bool) -> Tensor:
        """One shard's part of the step, in one vector: the gradients of all parameters, the loss, the stop flag."""
        loss = F.cross_entropy(self.logits(x), y_N, reduction="sum") / batch_count
        gradients = torch.autograd.grad(self.scaler.scale(loss), self.parameters)
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
        self.optimizer.learning_rate = learning_rate
        self.scaler.step(self.optimizer)  # type: ignore[arg-type]
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        parameters = {name: p.detach().cpu() for name, p in self.named.items()}
        scaler = self.scaler.state_dict()
        return {"parameters": parameters, "optimizer": self.optimizer.state(), "scaler": scaler}

    def restore(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.restore(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])


def learning_rate(settings: Settings, step: int, total_steps: int) -> float:
    """A linear warm-up, then a cosine to zero; steps count from zero."""
    warm_up = max(1, round(total_steps * WARM_UP_SHARE))
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total_steps - warm_up)))


Inputs = Callable[[Iterable[Sequence[int]]], Iterator[Tensor]]
"""Groups of pictures, by position -> the trainee's input x for each group."""


class Validation:
    """Loss and accuracy on the valid pictures, of which each process takes its share."""

    def __init__(self, trainee: Trainee, worker: Worker, labels: Sequence[int], inputs: Inputs) -> None:
        self.trainee, self.worker, self.labels, self.inputs = trainee, worker, labels, inputs
        self.own = range(worker.rank, len(labels), worker.world_size)

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """(loss, accuracy), the same on every process."""
        rows_N2 = torch.zeros(len(self.labels), 2, dtype=torch.float64)
        groups = [self.own[start : start + VALID_BATCH] for start in range(0, len(self.own), VALID_BATCH)]
        for some, x in zip(groups, self.inputs(groups), strict=True):
            logits_NK = self.trainee.logits(x).cpu()
            y_N = torch.tensor([self.labels[i] for i in some])
            rows_N2[some, 0] = F.cross_entropy(logits_NK, y_N, reduction="none").double()
            rows_N2[some, 1] = (logits_NK.argmax(dim=1) == y_N).double()
        loss, accuracy = gather_rows(self.worker, rows_N2).mean(dim=0).tolist()
        return loss, accuracy
