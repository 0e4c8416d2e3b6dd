"""The knobs of a training run, from flags and from SageMaker's environment.

Hyperparameters arrive as `--name value` flags, folders as `SM_*` variables; outside SageMaker `--data` and `--output`
say the folders.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from inference.contract import NETWORK_FILES

PRECISIONS = tuple(NETWORK_FILES)
WEIGHTS = ("channel", "package", "hub", "none")
TRAINABLE = ("head", "all")


class SettingsError(ValueError):
    """A flag or a folder is missing or has a value that is not allowed."""


@dataclass(frozen=True)
class Settings:
    """What decides the result; the same values give the same weights."""

    backbone: str = "efficientnet_lite0"
    """`efficientnet_lite0`, or the name of a torchvision classifier."""
    weights: str = "channel"
    """Where the backbone's weights come from: a file in the `weights` channel, an installed package, torchvision's
    hub, or none (random)."""
    trainable: str = "head"
    """`head`: the backbone stays frozen, and each picture goes through it once; `all`: everything but the batch norm
    statistics is trained."""
    epochs: int = 3
    """Passes over the training pictures, or over their features."""
    batch_size: int = 32
    """Pictures per step, over all hosts together."""
    image_size: int = 160
    """Side of the square that the model sees, in pixels."""
    learning_rate: float = 0.006
    """Peak rate of AdamW, reached after the warm-up; a cosine brings it to zero. The default suits a head; to train
    everything, start from a twentieth of it."""
    seed: int = 0
    """Decides order, augmentation and the initial head."""
    checkpoint_interval_steps: int = 10
    """Steps between two checkpoints, of features as of training: what an interruption repeats at most."""
    max_bad_share: float = 0.05
    """Largest share of the files, 0 to 1, that may be left out because they cannot be decoded as pictures."""
    precision: str = "float32"
    """What the model is served in, when it agrees with float32: `float32`, `bfloat16` or `int8`."""
    min_agreement: float = 0.98
    """Smallest share of the validation pictures, 0 to 1, on which it must say the same class as in float32."""

    @property
    def resize_size(self) -> int:
        """Pixels of a picture's shorter side before its central square is taken: as 256 is to 224."""
        return self.image_size * 8 // 7


@dataclass(frozen=True)
class Folders:
    """Where things are read and written on this host."""

    data: Path
    weights: Path | None
    champion: Path | None
    model: Path
    output: Path
    checkpoints: Path
    failure: Path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = _Parser(prog="training", description="Train an image classifier on an ImageFolder.", allow_abbrev=False)
    parser.add_argument("--backbone", default=default.backbone, metavar="NAME", help="or torchvision's")
    parser.add_argument("--weights", default=default.weights, choices=WEIGHTS, help="source of the backbone's weights")
    parser.add_argument("--trainable", default=default.trainable, choices=TRAINABLE, help="what is trained")
    for name, unit in (
        ("epochs", "passes over the training pictures"),
        ("batch_size", "pictures per step over all hosts"),
        ("image_size", "pixels"),
        ("checkpoint_interval_steps", "steps between checkpoints"),
    ):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, default=getattr(default, name), type=int, metavar="N", help=unit)
    parser.add_argument("--learning-rate", default=default.learning_rate, type=float, metavar="X", help="peak rate")
    parser.add_argument("--seed", default=default.seed, type=int, metavar="N", help="order, augmentation, initial head")
    parser.add_argument(
        "--max-bad-share", default=default.max_bad_share, type=float, metavar="X", help="of files that are no pictures"
    )
    parser.add_argument(
        "--precision", default=default.precision, choices=PRECISIONS, help="what the model is served in"
    )
    parser.add_argument(
        "--min-agreement", default=default.min_agreement, type=float, metavar="X", help="with float32, to be served so"
    )
    folders = parser.add_argument_group("outside SageMaker")
    folders.add_argument("--data", type=Path, metavar="DIR", help="pictures; default: the `data` channel")
    folders.add_argument("--output", type=Path, metavar="DIR", help="gets model/, output/ and checkpoints/")
    folders.add_argument("--weights-path", type=Path, metavar="PATH", help="default: the `weights` channel")
    folders.add_argument("--champion", type=Path, metavar="DIR", help="default: the `champion` channel")
    return parser


def _check(settings: Settings) -> None:
    for name in ("epochs", "batch_size", "image_size", "checkpoint_interval_steps"):
        if getattr(settings, name) < 1:
            raise SettingsError(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(settings, name)}")
    if not 0 < settings.learning_rate <= 10:
        raise SettingsError(f"--learning-rate must be between 0 and 10, got {settings.learning_rate}")
    if settings.seed < 0:
        raise SettingsError(f"--seed must be 0 or more, got {settings.seed}")
    if not 0 <= settings.max_bad_share <= 1:
        raise SettingsError(f"--max-bad-share must be between 0 and 1, got {settings.max_bad_share}")
    if not 0 <= settings.min_agreement <= 1:
        raise SettingsError(f"--min-agreement must be between 0 and 1, got {settings.min_agreement}")
    if settings.backbone == "efficientnet_lite0" and settings.image_size % 32:
        raise SettingsError(f"--image-size must be a multiple of 32 for efficientnet_lite0, got {settings.image_size}")
    if settings.weights == "none" and settings.trainable == "head":
        raise SettingsError("--trainable head needs pretrained weights: use --trainable all with --weights none")


def failure_path(environment: Mapping[str, str]) -> Path | None:
    """The file whose text SageMaker reports as FailureReason; None outside SageMaker."""
    if "SM_MODEL_DIR" not in environment and "SAGEMAKER_BASE_DIR" not in environment:
        return None
    return Path(environment.get("SAGEMAKER_BASE_DIR", "/opt/ml")) / "output" / "failure"


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[Settings, Folders]:
    """Read flags and environment.

    Environment: SAGEMAKER_BASE_DIR (default /opt/ml), SM_CHANNEL_DATA, SM_CHANNEL_WEIGHTS, SM_CHANNEL_CHAMPION,
    SM_MODEL_DIR, SM_OUTPUT_DATA_DIR; the last two are needed unless `--output` is given.

    Raises:
        SettingsError: names the flag or folder, the value, and what is allowed.
    """
    given = vars(_parser().parse_args(list(argv)))
    data, output, weights, champion = (given.pop(n) for n in ("data", "output", "weights_path", "champion"))
    settings = Settings(**given)
    _check(settings)

    def channel(name: str, path: Path | None) -> Path | None:
        if path is not None:
            return path
        variable = environment.get(f"SM_CHANNEL_{name.upper()}")
        return Path(variable) if variable else None

    data = channel("data", data)
    if data is None:
        raise SettingsError("no pictures: give --data DIR, or SageMaker's `data` channel (SM_CHANNEL_DATA)")
    if not data.is_dir():
        raise SettingsError(f"no pictures: {data} is not a folder")
    if output is not None:
        places = (output / "model", output / "output", output / "checkpoints", output / "failure")
    elif "SM_MODEL_DIR" in environment:
        base = Path(environment.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
        output_data = Path(environment.get("SM_OUTPUT_DATA_DIR", base / "output" / "data"))
        places = (Path(environment["SM_MODEL_DIR"]), output_data, base / "checkpoints", base / "output" / "failure")
    else:
        raise SettingsError("nowhere to write: give --output DIR, or run as a SageMaker training job (SM_MODEL_DIR)")
    return settings, Folders(data, channel("weights", weights), channel("champion", champion), *places)
