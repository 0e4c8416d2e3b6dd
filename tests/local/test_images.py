from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workflow.local import images
from workflow.local.images import Image, ImageBuildFailed, Images, UnknownImage, repository_of

NOTHING = Image("nothing", requirements="# an environment without packages\n")


@pytest.mark.parametrize(
    ("uri", "repository"),
    [
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312", "pytorch-training"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/kelpie-serving@sha256:" + "0" * 64, "kelpie-serving"),
        ("localhost:5000/kelpie-serving:latest", "kelpie-serving"),
        ("lambda/python3.12", "lambda/python3.12"),
    ],
)
def test_the_repository_is_what_is_left_of_registry_tag_and_digest(uri: str, repository: str) -> None:
    assert repository_of(uri) == repository


def test_the_training_image_is_the_running_interpreter(tmp_path: Path) -> None:
    uri = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:any"
    assert Images(tmp_path).python_for(uri) == Path(sys.executable)


def test_an_unknown_image_fails_as_on_aws(tmp_path: Path) -> None:
    with pytest.raises(UnknownImage, match="^Requested image 1.dkr.ecr.x.amazonaws.com/other:1 not found.$"):  # noqa: RUF043
        Images(tmp_path).python_for("1.dkr.ecr.x.amazonaws.com/other:1")


def test_an_environment_is_separate_from_the_projects_and_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Images(tmp_path, (NOTHING,))
    python = cache.python_for("nothing:latest")
    code = "import sys, importlib.util; print(sys.prefix != sys.base_prefix, importlib.util.find_spec('boto3'))"
    result = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "True None\n"
    monkeypatch.setattr(images, "_build", None)
    assert Images(tmp_path, (NOTHING,)).python_for("nothing") == python


def test_other_requirements_make_another_environment(tmp_path: Path) -> None:
    other = Image("nothing", requirements="# another comment\n")
    assert Images(tmp_path, (NOTHING,)).python_for("nothing") != Images(tmp_path, (other,)).python_for("nothing")


def test_two_who_ask_at_once_get_one_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(folder: Path, repository: str, requirements: str) -> None:
        built.append(repository)
        threading.Event().wait(0.3)
        folder.mkdir()

    monkeypatch.setattr(images, "_build", build)
    threads = [threading.Thread(target=Images(tmp_path, (NOTHING,)).python_for, args=["nothing"]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == ["nothing"]


def test_a_failed_build_quotes_pip_and_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    broken = Image("broken", requirements="./no-such-folder\n")
    with pytest.raises(ImageBuildFailed, match=r"(?s)image 'broken'.*no-such-folder"):
        Images(tmp_path, (broken,)).python_for("broken")
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_build_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    cache = Images(tmp_path, (NOTHING,))
    python = cache.python_for("nothing")
    python.parents[1].rename(python.parents[1].with_suffix(".building"))
    assert cache.python_for("nothing") == python
    assert python.exists()
