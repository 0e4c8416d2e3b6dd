"""AdamW as PyTorch computes it, without the class around it: making one imports PyTorch's compiler, which takes longer
than training a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""`torch.optim.AdamW`'s defaults."""


class AdamW:
    """Updates parameters by their `grad`, as `torch.optim.AdamW` does, to the bit."""

    def __init__(self, parameters: Sequence[Tensor], *, weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.param_groups = [{"params": self.parameters}]  # what GradScaler looks for
        self.learning_rate = 0.0
        self.averages, self.square_averages = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.steps = [torch.tensor(0.0) for _ in parameters]

    @torch.no_grad()
    def step(self) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        adamw(
            self.parameters, gradients, self.averages, self.square_averages, [], self.steps, foreach=True,
            amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=self.learning_rate, weight_decay=self.weight_decay,
            eps=EPSILON, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        return {"averages": self.averages, "square_averages": self.square_averages, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        for name, own in self.state().items():
            for mine, saved in zip(own, state[name], strict=True):
                mine.copy_(saved)
