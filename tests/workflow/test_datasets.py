"""Data sets: which files are pictures, and that each content is uploaded once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from workflow import datasets
from workflow.account import Account
from workflow.errors import KelpieError


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An account with a bucket named `data`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        account = Account(boto3.Session(region_name="us-east-1"))
        account.client("s3").create_bucket(Bucket="data")
        yield account


def folder_of(tmp_path: Path, *names: str) -> Path:
    """A folder with these files; each holds its own name."""
    for name in names:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "pictures"


def keys(account: Account) -> list[str]:
    return [item["Key"] for item in account.client("s3").list_objects_v2(Bucket="data").get("Contents", [])]


def test_only_pictures_are_uploaded_below_a_prefix_of_their_content(account: Account, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cat/1.jpg", "dog/2.PNG", "dog/notes.txt", "dog/.hidden.jpg", ".git/x/3.jpg")
    uri = datasets.upload(account, "data", folder)
    prefix = uri.removeprefix("s3://data/")
    assert keys(account) == [f"{prefix}cat/1.jpg", f"{prefix}dog/2.PNG"]
    assert prefix.startswith("datasets/")
    assert prefix.endswith("/")


def test_the_same_content_is_uploaded_once_and_another_content_elsewhere(account: Account, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cat/1.jpg", "dog/2.jpg")
    first = datasets.upload(account, "data", folder)
    written = account.client("s3").head_object(Bucket="data", Key=keys(account)[0])["LastModified"]
    assert datasets.upload(account, "data", folder) == first
    assert account.client("s3").head_object(Bucket="data", Key=keys(account)[0])["LastModified"] == written
    (folder / "cat/1.jpg").write_bytes(b"another cat")
    assert datasets.upload(account, "data", folder) != first


def test_progress_counts_every_picture(account: Account, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    datasets.upload(account, "data", folder_of(tmp_path, "a/1.jpg", "b/1.jpg"), lambda *counts: seen.append(counts))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("names", [(), ("1.jpg", "2.jpg"), ("cat/1.jpg", "cat/2.jpg"), ("cat/1.txt", "dog/2.txt")])
def test_a_folder_without_two_classes_is_refused_and_says_what_it_expects(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(KelpieError, match="class folders") as error:
        datasets.pictures(folder_of(tmp_path, *names))
    assert "<class>/*.jpg" in error.value.detail


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(KelpieError, match=r"no data folder .*nowhere"):
        datasets.pictures(tmp_path / "nowhere")


def test_links_to_pictures_and_to_folders_are_uploaded_as_what_they_lead_to(account: Account, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cat/1.jpg", "dog/2.jpg")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "3.jpg").write_bytes(b"three")
    (folder / "dog/linked.jpg").symlink_to(elsewhere / "3.jpg")
    (folder / "lynx").symlink_to(elsewhere)
    (folder / "cat/circle").symlink_to(folder)
    prefix = datasets.upload(account, "data", folder).removeprefix("s3://data/")
    assert [key.removeprefix(prefix) for key in keys(account)] == [
        "cat/1.jpg", "dog/2.jpg", "dog/linked.jpg", "lynx/3.jpg"
    ]  # fmt: skip


def test_a_link_to_nothing_is_named_before_anything_is_uploaded(account: Account, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (folder / "dog/gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    with pytest.raises(KelpieError, match=r"dog/gone\.jpg.* is a link to nothing"):
        datasets.upload(account, "data", folder)
    assert keys(account) == []


@pytest.mark.parametrize("name", [b"\xe9t\xe9.jpg", b"two\nlines.jpg", b"back\\slash.jpg"])
def test_a_name_that_is_no_good_key_is_named(tmp_path: Path, name: bytes) -> None:
    folder = folder_of(tmp_path, "cat/1.jpg", "dog/2.jpg")
    (folder / "dog" / os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(KelpieError, match="character that a key in S3 should not have") as error:
        datasets.pictures(folder)
    str(error.value).encode()


def test_names_in_any_language_are_kept(account: Account, tmp_path: Path) -> None:
    names = [
        "Zwergpinscher für Größen/犬 \N{DOG FACE}.jpg",
        "two  spaces/'quotes' & %20+.jpg",
        "cat/Screenshot at 9.41\u202fAM.jpg",
    ]
    prefix = datasets.upload(account, "data", folder_of(tmp_path, *names)).removeprefix("s3://data/")
    assert {key.removeprefix(prefix) for key in keys(account)} == set(names)
