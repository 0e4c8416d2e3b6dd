"""AdamW without its class."""

from __future__ import annotations

import subprocess
import sys

import torch
from training_hosts import ROOT

from training.optimizer import AdamW

WITHOUT_COMPILER = """
import sys
import torch
from training.main import Settings, Trainee, build
from training import network, export

torch.set_deterministic_debug_mode("error")
settings = Settings()
model = build(settings.backbone, 3, source="package", path=None, seed=0)
trainee = Trainee(settings, model, torch.device("cpu"))
trainee.update(trainee.shard_sums(torch.zeros(2, 1280), torch.tensor([0, 1]), 2, False), 0.1)
network.of_backbone(model.backbone, export.input_contract(settings))
print([name for name in ("torch._dynamo", "torch._inductor", "onnxscript", "torchvision") if name in sys.modules])
"""


def test_it_computes_what_torchs_class_computes() -> None:
    torch.manual_seed(0)
    ours = [torch.randn(4, 7), torch.randn(4)]
    theirs = [torch.nn.Parameter(tensor.clone()) for tensor in ours]
    mine, reference = AdamW(ours, weight_decay=0.01), torch.optim.AdamW(theirs, weight_decay=0.01, foreach=True)
    for step in range(1, 6):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn_like(one)
        mine.learning_rate = reference.param_groups[0]["lr"] = 0.1 / step
        mine.step()
        reference.step()
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_its_state_goes_on_where_it_was() -> None:
    def stepped(optimizer: AdamW, count: int) -> AdamW:
        for parameter in optimizer.parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.learning_rate = 0.1
        for _ in range(count):
            optimizer.step()
        return optimizer

    whole = stepped(AdamW([torch.ones(3)], weight_decay=0.01), 5)
    first = stepped(AdamW([torch.ones(3)], weight_decay=0.01), 3)
    second = AdamW([first.parameters[0].clone()], weight_decay=0.01)
    second.restore(first.state())
    assert torch.equal(stepped(second, 2).parameters[0], whole.parameters[0])


def test_neither_a_step_nor_a_graph_needs_torchs_compiler() -> None:
    """It would take longer to import than the head to train."""
    argv = [sys.executable, "-c", WITHOUT_COMPILER]
    assert subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"
