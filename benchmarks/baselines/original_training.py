"""The training recipe of the original project, written anew from its description.

An ImageNet backbone with frozen parameters but in train mode, RandomResizedCrop(224), flip, ToTensor without
normalisation, Pillow, no loader workers, Adam, a head of Linear, ReLU, Linear, validation with the graph on, and no
distribution whatever the number of instances. `--fair` takes its two bugs away: the backbone stays in evaluation mode,
so that its batch norm is really frozen, and validation builds no graph. Threads and allocator are set by who starts it.

Prints one JSON object for each epoch: `epoch`, `pictures` trained on, `valid_accuracy`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms  # type: ignore[import-untyped]

from training.backbones import LITE0, LITE0_FEATURES, build

BATCH_SIZE = 32
HIDDEN = 128
LEARNING_RATE = 1e-3
"""Adam's own default."""


def loaders(data: Path) -> tuple[DataLoader[object], DataLoader[object], int]:
    """Training and validation pictures, and the number of classes."""
    crop = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    whole = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])
    train = datasets.ImageFolder(data / "train", crop)
    valid = datasets.ImageFolder(data / "valid", whole)
    batches = DataLoader(train, BATCH_SIZE, shuffle=True)
    return batches, DataLoader(valid, BATCH_SIZE), len(train.classes)


def correct(model: nn.Module, batches: DataLoader[object]) -> float:
    """The share of the pictures that the model gets right."""
    model.eval()
    right = seen = 0
    for x_NCHW, y_N in batches:
        logits_NK = model(x_NCHW)
        right += int((logits_NK.argmax(dim=1) == y_N).sum())
        seen += len(y_N)
    return right / seen


def main() -> None:
    """Train until the accuracy is reached or the epochs are over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fair", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    train, valid, class_count = loaders(options.data)
    backbone = build(LITE0, class_count, source="package", path=None, seed=options.seed).backbone
    backbone.requires_grad_(False)
    head = nn.Sequential(nn.Linear(LITE0_FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, class_count))
    model = nn.Sequential(backbone, head)
    optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(1, options.epochs + 1):
        model.train()
        if options.fair:
            backbone.eval()
        pictures = 0
        for x_NCHW, y_N in train:
            optimizer.zero_grad()
            loss = criterion(model(x_NCHW), y_N)
            loss.backward()
            optimizer.step()
            pictures += len(y_N)
        with torch.set_grad_enabled(not options.fair):
            accuracy = correct(model, valid)
        print(json.dumps({"epoch": epoch, "pictures": pictures, "valid_accuracy": accuracy}), flush=True)
        if accuracy >= options.target:
            break


if __name__ == "__main__":
    main()
