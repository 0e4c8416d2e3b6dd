"""The wheels for the training container: fetched for its Python, under one prefix, installed without a network."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from training import wheels as channel
from workflow.deployment import wheels
from workflow.errors import KelpieError

TAG = "2.10.0-cpu-py313-ubuntu22.04-sagemaker"
NAMES = ("numpy", "onnx", "onnxruntime", "onnxscript", "pillow", "safetensors")


def make_wheel(folder: Path, name: str, version: str = "99.0", tag: str = "py3-none-any", requires: str = "") -> Path:
    """A wheel of one module that says its version."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text.encode())}\n"
        for path, text in files.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the package index, with a wheel of everything; no versions are pinned."""
    folder = tmp_path / "index"
    for name in NAMES:
        make_wheel(folder, name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    source = tmp_path / "source" / "training"
    source.mkdir(parents=True)
    (source / "requirements.txt").write_text("\n".join(NAMES))
    monkeypatch.setattr(wheels, "SOURCE_ROOT", source.parent)
    return folder


def test_the_wheels_are_those_of_the_images_python(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "onnx", "100.0", "cp313-cp313-manylinux_2_28_x86_64")
    make_wheel(index, "onnx", "101.0", "cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(index, "onnx", "102.0", "cp313-cp313-macosx_11_0_arm64")
    found = {asset.name: asset for asset in wheels.wheels(TAG, tmp_path / "cache")}
    assert "onnx-100.0-cp313-cp313-manylinux_2_28_x86_64.whl" in found
    assert len(found) == len(NAMES)


def test_all_lie_below_one_prefix_that_says_their_content(index: Path, tmp_path: Path) -> None:
    first = wheels.wheels(TAG, tmp_path / "one")
    again = wheels.wheels(TAG, tmp_path / "two")
    assert {asset.prefix for asset in first} == {asset.prefix for asset in again} == {first[0].prefix}
    assert first[0].key == f"{first[0].prefix}{first[0].name}"
    make_wheel(index, "pillow", "100.0")
    assert wheels.wheels(TAG, tmp_path / "three")[0].prefix != first[0].prefix


def test_what_was_fetched_is_not_fetched_again(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = wheels.wheels(TAG, tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    assert wheels.wheels(TAG, tmp_path / "cache") == first


def test_what_pip_cannot_find_is_told_and_nothing_half_fetched_stays(index: Path, tmp_path: Path) -> None:
    next(index.glob("onnxscript*")).unlink()
    with pytest.raises(KelpieError, match=r"Python 3\.13") as raised:
        wheels.wheels(TAG, tmp_path / "cache")
    assert "onnxscript" in raised.value.detail
    make_wheel(index, "onnxscript")
    assert len(wheels.wheels(TAG, tmp_path / "cache")) == len(NAMES)


def test_a_torch_of_its_own_is_refused(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "nvidia_cudnn")
    make_wheel(index, "onnxscript", "100.0", requires="nvidia-cudnn")
    with pytest.raises(KelpieError, match="their own PyTorch") as raised:
        wheels.wheels(TAG, tmp_path / "cache")
    assert "nvidia_cudnn-99.0" in raised.value.detail


def test_a_tag_without_a_python_is_refused() -> None:
    with pytest.raises(KelpieError, match=r"2\.13-cu133"):
        wheels.wheels("2.13-cu133-amzn2023-sagemaker")


def test_a_channel_without_wheels_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    [placeholder] = wheels.none()
    assert isinstance(placeholder.content, bytes)
    (tmp_path / placeholder.name).write_bytes(placeholder.content)
    assert not channel.install(tmp_path)
    channel.provide({})


def python_of_a_new_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True, symlinks=True)
    return folder / "bin" / "python"


def test_an_environment_without_a_package_gets_it_from_the_channel_and_keeps_what_it_has(tmp_path: Path) -> None:
    """As in the container: the archive's own files, a Python that lacks one package and has another, no network."""
    python = python_of_a_new_environment(tmp_path / "env")
    old, new = tmp_path / "image", tmp_path / "channel"
    make_wheel(old, "breeds", "1.0")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", old, "breeds"], check=True)
    make_wheel(new, "breeds", "2.0")
    make_wheel(new, "collies", "3.0", requires="breeds>=1")
    source = tmp_path / "code"
    room = Path(channel.__file__).parent
    for name in (
        "training/__init__.py", "training/launch.py", "training/wheels.py", "training/settings.py",
        "inference/__init__.py", "inference/contract.py",
    ):  # fmt: skip
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((room.parent / name).read_bytes())
    (source / "training" / "requirements.txt").write_text("breeds>=1\ncollies\n")
    (source / "training" / "main.py").write_text(
        "import breeds, collies\ndef run_and_leave(reading):\n"
        "    print(reading, breeds.VERSION, collies.VERSION)\n    raise SystemExit(7)\n"
    )
    (source / "training" / "reading.py").write_text("import collies\ndef begin(*_):\n    return 'begun'\n")
    (source / "train.py").write_bytes((room / "entry_point.py").read_bytes())
    environment = {"SM_CHANNEL_WHEELS": str(new), "PATH": os.environ["PATH"], "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    result = subprocess.run(
        [python, "train.py"], cwd=source, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.split()[-3:]) == (7, ["begun", "1.0", "3.0"]), result.stderr


def test_wheels_that_do_not_make_up_for_what_is_missing_fail_the_job_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(tmp_path / "channel", "collies")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-distribution-anywhere\n")
    monkeypatch.setattr(channel.install, "__defaults__", (requirements,))
    environment = {"SM_CHANNEL_WHEELS": str(tmp_path / "channel"), "SAGEMAKER_BASE_DIR": str(tmp_path / "ml")}
    with pytest.raises(SystemExit, match="1"):
        channel.provide(environment)
    failure = (tmp_path / "ml" / "output" / "failure").read_text()
    assert "no-such-distribution-anywhere" in failure
    assert failure in capsys.readouterr().err
