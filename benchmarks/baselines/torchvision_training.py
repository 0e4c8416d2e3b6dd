"""torchvision's reference recipe for classification, written anew from its description, for one process.

RandomResizedCrop(224), flip, normalisation, Pillow, DataLoader workers, the whole network trained by SGD with momentum
0.9 and weight decay 1e-4, batches of 32; validation on the central 224 pixels of 256 in inference mode. The reference's
learning rate of 0.1 is for eight processes: 0.1 / 8 here. Its steps every 30 epochs lie behind the end.

Prints what original_training.py prints.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms  # type: ignore[import-untyped]

from benchmarks.baselines.original_training import correct
from training.backbones import LITE0, LITE0_NORMALISATION, build

BATCH_SIZE = 32
LEARNING_RATE = 0.1 / 8
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4


def main() -> None:
    """Train until the accuracy is reached or the epochs are over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    normalise = transforms.Normalize(LITE0_NORMALISATION.mean, LITE0_NORMALISATION.std)
    to_tensor = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float), normalise]
    crop = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(0.5), *to_tensor])
    centre = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *to_tensor])
    train = datasets.ImageFolder(options.data / "train", crop)
    batches = DataLoader(train, BATCH_SIZE, shuffle=True, num_workers=options.workers)
    valid = DataLoader(datasets.ImageFolder(options.data / "valid", centre), BATCH_SIZE, num_workers=options.workers)
    model = build(LITE0, len(train.classes), source="package", path=None, seed=options.seed)
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(1, options.epochs + 1):
        model.train()
        pictures = 0
        for x_NCHW, y_N in batches:
            loss = criterion(model(x_NCHW), y_N)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pictures += len(y_N)
        with torch.inference_mode():
            accuracy = correct(model, valid)
        print(json.dumps({"epoch": epoch, "pictures": pictures, "valid_accuracy": accuracy}), flush=True)
        if accuracy >= options.target:
            break


if __name__ == "__main__":
    main()
