"""The archives that ship: a function of their files alone, complete, and within AWS's limits."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import fastjsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow import execution_input
from workflow.deployment import packaging
from workflow.errors import ConfigError, KelpieError

REPOSITORY = Path(__file__).parents[3]
BUILD = """
from workflow.deployment import packaging
print(packaging.training_archive().sha256, packaging.lambda_archive("resolve_input").sha256)
print(packaging.layer_archive().sha256)
"""
FOLDERS_AND_NAMES = st.lists(st.sampled_from(["a", "b", "c d", "ä"]), min_size=1, max_size=3).map("/".join)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small source tree in the place of the real one."""
    files = {
        "training/entry_point.py": "run()",
        "training/main.py": "",
        "training/__pycache__/main.cpython-311.pyc": "",
        "training/.hidden": "",
        "inference/requirements.txt": "numpy",
        "inference/parts/deep.py": "",
        "lambdas/classify/handler.py": "",
    }
    for name, text in files.items():
        write(tmp_path / name, text)
    monkeypatch.setattr(packaging, "SOURCE_ROOT", tmp_path)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def members_of_training_archive() -> dict[str, tarfile.TarInfo]:
    content = packaging.training_archive().content
    assert isinstance(content, bytes)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: member for member in tar}


def zip_of(name: str) -> zipfile.ZipFile:
    content = packaging.lambda_archive(name).content
    assert isinstance(content, bytes)
    return zipfile.ZipFile(io.BytesIO(content))


def distribution(folder: Path, name: str, *files: str) -> None:
    """Install a distribution of empty files into a folder."""
    info = folder / f"{name}-1.0.dist-info"
    for file in files:
        write(folder / file, "")
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    write(info / "RECORD", "".join(f"{file},,\n" for file in (*files, f"{info.name}/METADATA", f"{info.name}/RECORD")))


def test_two_processes_make_the_same_bytes() -> None:
    def build(hash_seed: str) -> bytes:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.check_output([sys.executable, "-c", BUILD], cwd=REPOSITORY, env=environment)

    assert build("1") == build("2")


def test_modification_times_and_modes_do_not_matter(source: Path) -> None:
    before = packaging.training_archive().sha256, packaging.lambda_archive("classify").sha256
    for path in source.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert (packaging.training_archive().sha256, packaging.lambda_archive("classify").sha256) == before


def test_a_changed_byte_changes_the_key(source: Path) -> None:
    before = packaging.training_archive().key
    write(source / "inference" / "parts" / "deep.py", "1")
    assert packaging.training_archive().key != before


@given(st.dictionaries(FOLDERS_AND_NAMES, st.binary(max_size=50)), st.randoms())
def test_the_order_of_files_does_not_matter_and_nothing_is_lost(files: dict[str, bytes], random: object) -> None:
    shuffled = dict(sorted(files.items(), key=lambda _: random.random()))  # type: ignore[attr-defined]
    assert packaging._tar_gz(files) == packaging._tar_gz(shuffled)
    assert packaging._zip(files) == packaging._zip(shuffled)
    with zipfile.ZipFile(io.BytesIO(packaging._zip(files))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    with tarfile.open(fileobj=io.BytesIO(packaging._tar_gz(files))) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == files  # type: ignore[union-attr]


def test_the_training_archive_holds_the_entry_point_and_both_rooms(source: Path) -> None:
    members = members_of_training_archive()
    assert list(members) == [
        "inference/parts/deep.py",
        "inference/requirements.txt",
        "train.py",
        "training/entry_point.py",
        "training/main.py",
    ]
    assert {(member.mtime, member.mode, member.uid, member.uname) for member in members.values()} == {(0, 0o644, 0, "")}


def test_the_real_training_archive_runs_without_the_repository(tmp_path: Path) -> None:
    content = packaging.training_archive().content
    assert isinstance(content, bytes)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(tmp_path, filter="data")
    # Found by file, not imported: torch takes seconds.
    assert (tmp_path / "train.py").read_text() == (REPOSITORY / "training" / "entry_point.py").read_text()
    shipped = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")} - {Path("train.py")}
    assert shipped == {
        path.relative_to(REPOSITORY) for room in ("training", "inference") for path in (REPOSITORY / room).rglob("*.py")
    }


@pytest.mark.parametrize("name", packaging.LAMBDAS)
def test_every_lambda_zip_has_its_handler_at_the_root(name: str) -> None:
    with zip_of(name) as archive:
        assert "handler.py" in archive.namelist()
        assert archive.testzip() is None


def test_every_folder_below_lambdas_is_a_lambda() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "lambdas").glob("*/handler.py")}
    assert folders == set(packaging.LAMBDAS)


def unpacked_layer(folder: Path) -> Path:
    """Where the layer's packages are, as /opt/python on AWS."""
    content = packaging.layer_archive().content
    assert isinstance(content, bytes)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return folder / packaging.LAYER_FOLDER


def test_powertools_imports_from_the_layer_alone(tmp_path: Path) -> None:
    layer = unpacked_layer(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(layer)!r});"
        "import jmespath, aws_lambda_powertools as powertools, aws_lambda_powertools.event_handler;"
        "from aws_lambda_powertools import Logger; Logger(service='x').info('works');"
        "print(powertools.__file__)"
    )
    printed = subprocess.check_output([sys.executable, "-I", "-S", "-c", program], text=True)
    assert printed.splitlines()[-1].startswith(str(layer))


def test_what_only_one_lambda_needs_is_in_its_zip_and_imports_from_there_alone(tmp_path: Path) -> None:
    with zip_of("resolve_input") as archive:
        archive.extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import fastjsonschema; print(fastjsonschema.__file__)"
    )
    printed = subprocess.check_output([sys.executable, "-I", "-S", "-c", program], text=True)
    assert printed.startswith(str(tmp_path))
    with zip_of("classify") as archive:
        assert set(archive.namelist()) == {"handler.py"}


def test_the_layer_holds_the_locked_versions() -> None:
    locked = dict(
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line
    )
    locked = {re.sub("[-_.]+", "-", name).lower(): version for name, version in locked.items()}
    for name in (*packaging.LAYER, *(one for names in packaging.VENDORED.values() for one in names)):
        assert metadata.version(name) == locked[name.replace("_", "-")], name


def test_another_version_in_the_layer_makes_another_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = packaging.layer_archive().key
    distribution(tmp_path, "more", "more.py")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packaging, "LAYER", (*packaging.LAYER, "more"))
    assert packaging.layer_archive().key != before


def test_licences_are_shipped_and_installer_files_are_not() -> None:
    names = packaging.vendored_files(packaging.LAYER)
    assert any(name.startswith("aws_lambda_powertools") and name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.endswith(("RECORD", "INSTALLER", "REQUESTED", ".pyc"))]


def test_resolve_input_carries_the_schema_of_an_executions_input() -> None:
    with zip_of("resolve_input") as archive:
        schema = json.loads(archive.read("execution_input.schema.json"))
    assert schema == json.loads(json.dumps(execution_input.execution_input_schema()))
    assert fastjsonschema.compile(schema)({}) == {}


def test_only_resolve_input_carries_the_schema() -> None:
    with zip_of("classify") as archive:
        assert "execution_input.schema.json" not in archive.namelist()


def test_an_unknown_lambda_is_named_with_the_known_ones() -> None:
    with pytest.raises(KelpieError, match="'fetch'") as raised:
        packaging.lambda_archive("fetch")
    assert "smoke_test" in raised.value.detail


def test_a_distribution_with_compiled_files_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distribution(tmp_path, "fast", "fast/__init__.py", "fast/core.cpython-311-x86_64-linux-gnu.so")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KelpieError, match=r"core\.cpython-311-x86_64-linux-gnu\.so"):
        packaging.vendored_files(("fast",))


def test_files_outside_site_packages_are_not_vendored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    distribution(tmp_path / "lib", "tool", "tool.py", "../bin/tool")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    assert set(packaging.vendored_files(("tool",))) == {"tool.py", "tool-1.0.dist-info/METADATA"}


def test_a_distribution_that_is_not_installed_is_named_with_the_command() -> None:
    with pytest.raises(KelpieError) as raised:
        packaging.vendored_files(("no-such-distribution",))
    assert raised.value.fix == "python -m pip install no-such-distribution"


def test_a_lambda_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setattr(packaging, "LAMBDA_UNZIPPED_LIMIT_BYTES", 1000)
    with pytest.raises(KelpieError, match=r"classify\.zip") as raised:
        packaging.lambda_archive("classify")
    assert "1,000 bytes" in raised.value.detail


def test_a_missing_room_is_named(source: Path) -> None:
    (source / "inference" / "requirements.txt").unlink()
    (source / "inference" / "parts" / "deep.py").unlink()
    with pytest.raises(KelpieError, match="inference"):
        packaging.training_archive()


def test_a_key_contains_the_hash_of_the_content() -> None:
    asset = packaging.asset_of_bytes("x.json", b"{}")
    assert asset.key == f"assets/{hashlib.sha256(b'{}').hexdigest()}/x.json"
    assert asset.size_bytes == 2


def test_the_weights_are_the_installed_ones() -> None:
    asset = packaging.weights()
    assert asset is not None
    assert isinstance(asset.content, Path)
    assert asset.name.endswith(".pth")
    assert hashlib.sha256(asset.content.read_bytes()).hexdigest() == asset.sha256


def test_weights_of_ones_own_take_the_place_of_the_installed_ones(tmp_path: Path) -> None:
    file = tmp_path / "resnet50.safetensors"
    file.write_bytes(b"weights")
    asset = packaging.weights(str(file))
    assert asset is not None
    assert asset.content == file


@pytest.mark.parametrize("name", ["missing.pth", "notes.txt"])
def test_weights_that_training_could_not_read_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=name):
        packaging.weights(str(tmp_path / name))


def test_there_are_no_weights_when_they_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "WEIGHTS_DISTRIBUTION", "no-such-distribution")
    assert packaging.weights() is None


def test_a_file_that_s3_would_not_take_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaging, "S3_SINGLE_PUT_LIMIT_BYTES", 3)
    write(tmp_path / "big.pth", "1234")
    with pytest.raises(KelpieError, match=r"big\.pth"):
        packaging.asset_of_file(tmp_path / "big.pth")
