"""The model's contract: what `model.json` says and what serving understands of it.

The file travels inside the model archive, beside `model.onnx`. Training writes it, serving refuses a model whose
contract it does not understand. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FORMAT = "kelpie-image-classifier"
FORMAT_VERSION = 1
INTERPOLATIONS = ("bilinear", "bicubic")
NETWORK_FILES = {
    "float32": ("model.onnx",),
    "bfloat16": ("model.xml", "model.bin"),
    "int8": ("model.xml", "model.bin"),
}
"""The files of the network, by precision. `model.onnx`, in float32, is in every archive: it is what a CPU serves that
is not made for the other two."""
MAX_IMAGE_SIZE = 2048


class InvalidContract(ValueError):
    """`model.json` is missing, malformed, or of a format or version that this code does not understand."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise InvalidContract(message)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    """A JSON number that is neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e9 < value < 1e9


def _known_keys(section: str, given: object, known: type, required: tuple[str, ...]) -> dict[str, Any]:
    """Check a JSON object against a dataclass; a key that is not understood could change the meaning of the rest."""
    if not isinstance(given, Mapping):
        raise InvalidContract(f"{section} must be an object, got {given!r}")
    names = [entry.name for entry in fields(known)]
    unknown = sorted(set(given) - set(names))
    missing = sorted(set(required) - set(given))
    _require(not unknown, f"{section}: unknown key {', '.join(unknown)}; known keys are {', '.join(names)}")
    _require(not missing, f"{section}: missing key {', '.join(missing)}")
    return dict(given)


@dataclass(frozen=True)
class InputContract:
    """How a picture becomes the model's input tensor; `inference.preprocessing` is its only reader.

    The shorter side is scaled to `resize_size` pixels, the central square of `image_size` pixels is kept, and each
    channel (red, green, blue, scaled to 0..1) becomes `(value - mean) / std`.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"
    name: str = "images"

    def __post_init__(self) -> None:
        for key in ("image_size", "resize_size"):
            value = getattr(self, key)
            in_range = _is_int(value) and 1 <= value <= MAX_IMAGE_SIZE
            _require(in_range, f"input.{key} must be an integer from 1 to {MAX_IMAGE_SIZE}, got {value!r}")
        _require(
            self.resize_size >= self.image_size,
            f"input.resize_size must be at least input.image_size ({self.image_size}), got {self.resize_size}",
        )
        for key in ("mean", "std"):
            value = getattr(self, key)
            three = isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value))
            _require(three, f"input.{key} must be three numbers, got {value!r}")
            object.__setattr__(self, key, tuple(float(n) for n in value))
        _require(min(self.std) >= 1e-6, f"input.std must be positive, got {list(self.std)}")
        _require(
            self.interpolation in INTERPOLATIONS,
            f"input.interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}",
        )
        _require(isinstance(self.name, str) and bool(self.name), f"input.name must be a name, got {self.name!r}")


@dataclass(frozen=True)
class OutputContract:
    """The model's output tensor: unnormalised scores (logits), shape (batch, classes)."""

    name: str = "logits"

    def __post_init__(self) -> None:
        _require(isinstance(self.name, str) and bool(self.name), f"output.name must be a name, got {self.name!r}")


@dataclass(frozen=True)
class ModelContract:
    """Everything that serving needs to know about a model, and where it came from.

    `library_versions` and `training` are for people and for later comparison; serving does not act on them.
    """

    classes: tuple[str, ...]
    input: InputContract
    output: OutputContract = OutputContract()
    precision: str = "float32"
    """What the network computes in: a key of `NETWORK_FILES`. Training decides it, after its agreement gate."""
    backbone: str = ""
    library_versions: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = isinstance(self.classes, (list, tuple)) and all(isinstance(n, str) and n for n in self.classes)
        _require(names and len(self.classes) > 0, "classes must be a list of one or more names")
        object.__setattr__(self, "classes", tuple(self.classes))
        _require(len(set(self.classes)) == len(self.classes), "classes must not repeat a name")
        _require(
            isinstance(self.precision, str) and self.precision in NETWORK_FILES,
            f"precision must be one of {', '.join(NETWORK_FILES)}, got {self.precision!r}",
        )
        _require(isinstance(self.backbone, str), f"backbone must be a name, got {self.backbone!r}")
        for key in ("library_versions", "training"):
            _require(isinstance(getattr(self, key), dict), f"{key} must be an object, got {getattr(self, key)!r}")

    @classmethod
    def from_json(cls, document: object) -> ModelContract:
        """Build the contract from the parsed `model.json`.

        Raises:
            InvalidContract: the format or its version is unknown, or a key is missing, unknown or out of range.
        """
        if not isinstance(document, Mapping):
            raise InvalidContract("model.json must hold a JSON object")
        given = dict(document)
        kind, version = given.pop("format", None), given.pop("format_version", None)
        _require(kind == FORMAT, f"format must be {FORMAT!r}, got {kind!r}")
        _require(
            _is_int(version) and version == FORMAT_VERSION,
            f"format_version must be {FORMAT_VERSION}, got {version!r}: this model was made for another release",
        )
        given = _known_keys("model.json", given, cls, ("classes", "input"))
        required_input = ("image_size", "resize_size", "mean", "std")
        given["input"] = InputContract(**_known_keys("input", given["input"], InputContract, required_input))
        given["output"] = OutputContract(**_known_keys("output", given.get("output", {}), OutputContract, ()))
        return cls(**given)

    @classmethod
    def load(cls, path: Path) -> ModelContract:
        """Read `model.json`, or the `model.json` of a model folder.

        Raises:
            InvalidContract: as `from_json`, or the file cannot be read as JSON.
        """
        path = path / "model.json" if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InvalidContract(f"cannot read {path}: {error}") from error
        return cls.from_json(document)

    def to_json(self) -> dict[str, Any]:
        """The JSON-able document that `from_json` reads."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}

    def dump(self, path: Path) -> None:
        """Write the contract to `path` (`model.json`, or a folder to put it in)."""
        path = path / "model.json" if path.is_dir() else path
        path.write_text(json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
