from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.check_data import handler as check_data
from lambdas.check_data.handler import InvalidData, handler, take_stock

JPEG, PNG, WEBP = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\x00\x00\x00WEBP"
FLAT = {f"{name}/{number}.jpg": JPEG for name in ("corgi", "poodle") for number in range(12)}
SPLIT = {
    f"{split}/{name}/{number}.jpg": JPEG + f"{split}{name}{number}".encode()
    for split, count in (("train", 12), ("valid", 3), ("test", 3))
    for name in ("corgi", "poodle")
    for number in range(count)
}


@pytest.fixture
def check(aws: Any, context: Any) -> Any:
    """Put these files under s3://data/dogs/ and check them."""

    def put_and_check(files: dict[str, bytes], uri: str = "s3://data-bucket/dogs/") -> dict[str, Any]:
        s3 = aws("s3")
        s3.create_bucket(Bucket="data-bucket")
        for key, content in files.items():
            s3.put_object(Bucket="data-bucket", Key=f"dogs/{key}", Body=content)
        result = handler({"s3_uri": uri}, context)
        assert isinstance(result, dict)
        return result

    return put_and_check


def objects(*keys: str) -> list[tuple[str, int, str]]:
    return [(key, 100, f"etag of {key}") for key in keys]


def test_a_flat_data_set_is_counted(check: Any) -> None:
    result = check(FLAT)
    assert result["layout"] == "flat"
    assert (result["class_count"], result["image_count"]) == (2, 24)
    assert result["total_bytes"] == 24 * len(JPEG)
    assert result["warnings"] == []
    assert "split_image_counts" not in result


def test_a_given_split_is_counted_by_split(check: Any) -> None:
    result = check(SPLIT)
    assert result["layout"] == "split"
    assert result["class_count"] == 2
    assert result["split_image_counts"] == {"train": 24, "valid": 6, "test": 6}


@pytest.mark.parametrize("folder", ["val", "validation"])
def test_validation_pictures_may_have_the_other_usual_names(check: Any, folder: str) -> None:
    result = check({key.replace("valid/", f"{folder}/"): content for key, content in SPLIT.items()})
    assert result["split_image_counts"] == {"train": 24, "valid": 6, "test": 6}


def test_without_test_pictures_the_valid_ones_are_tested_on(check: Any) -> None:
    result = check({key: content for key, content in SPLIT.items() if not key.startswith("test/")})
    assert result["split_image_counts"] == {"train": 24, "valid": 0, "test": 6}


def test_a_train_folder_alone_is_a_flat_data_set(check: Any) -> None:
    result = check({key: content for key, content in SPLIT.items() if key.startswith("train/")})
    assert (result["layout"], result["class_count"], result["image_count"]) == ("flat", 2, 24)


def test_a_prefix_without_its_slash_means_the_folder(check: Any, aws: Any) -> None:
    check(FLAT)
    aws("s3").put_object(Bucket="data-bucket", Key="dogs-of-others/pug/1.jpg", Body=JPEG)
    result = check({}, "s3://data-bucket/dogs")
    assert (result["s3_uri"], result["image_count"]) == ("s3://data-bucket/dogs/", 24)


def test_the_manifest_hash_follows_content_and_names_and_nothing_else(check: Any) -> None:
    first = check(FLAT)["manifest_sha256"]
    assert check(FLAT)["manifest_sha256"] == first
    assert check({"readme.txt": b"hello"})["manifest_sha256"] == first
    changed = check({"corgi/0.jpg": JPEG + b"!"})["manifest_sha256"]
    assert changed != first
    assert check({"corgi/12.jpg": JPEG})["manifest_sha256"] not in (first, changed)


def test_what_is_not_used_is_said_with_examples(check: Any) -> None:
    odd = {
        "corgi/notes.txt": b"x",
        "corgi/.DS_Store": b"x",
        "corgi/empty.jpg": b"",
        "stray.jpg": JPEG,
        "corgi/LOUD.JPG": JPEG,
    }
    result = check({**FLAT, **odd})
    text = "\n".join(result["warnings"])
    assert result["image_count"] == 25
    for part in (
        "corgi/notes.txt",
        "hidden: corgi/.DS_Store",
        "zero bytes): corgi/empty.jpg",
        "no class folder: stray",
    ):
        assert part in text


def test_a_class_with_few_pictures_is_warned_about(check: Any) -> None:
    assert (
        "fewer than 10 pictures to train on: pug" in check({**FLAT, "pug/1.jpg": JPEG, "pug/2.jpg": PNG})["warnings"][0]
    )


def test_the_same_picture_in_train_and_test_is_warned_about(check: Any) -> None:
    result = check({**SPLIT, "test/corgi/copy.jpg": SPLIT["train/corgi/0.jpg"]})
    assert result["warnings"] == ["1 test pictures are in train/ too, so the measured accuracy is too good"]


def test_files_that_are_no_pictures_or_have_the_wrong_extension_are_named(check: Any) -> None:
    text = "\n".join(check({**FLAT, "corgi/page.jpg": b"<html>", "corgi/really.png": WEBP})["warnings"])
    assert "1 of 26 sampled files do not begin like a picture: corgi/page.jpg" in text
    assert "corgi/really.png" in text


def test_a_data_set_of_no_pictures_at_all_is_refused(check: Any) -> None:
    with pytest.raises(InvalidData, match="None of 24 sampled files"):
        check(dict.fromkeys(FLAT, b"<html>"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "no objects at all"),
        (["readme.txt"], "1 in no class folder"),
        (["corgi/1.jpg", "corgi/2.jpg"], "Found 1 class folder"),
        (["corgi/1.jpg", "corgi/2.jpg", "pug/notes.txt"], "1 of 2 classes .* fewer than 2 train pictures: pug"),
        (["corgi/1.jpg", "corgi/2.jpg", "pug/1.jpg"], "fewer than 2 train pictures: pug"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg", "test/c/1.jpg"],
            "Class 'c' is among the test",
        ),
        (["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"], "fewer than 1 test pictures: b"),
        (["train/1.jpg", "train/2.jpg", "corgi/1.jpg"], "3 in no class folder"),
    ],
)
def test_a_data_set_that_training_would_refuse_is_refused_here(keys: list[str], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        take_stock(objects(*keys), "s3://data-bucket/dogs/")


@pytest.mark.parametrize(
    "key", ["../etc/passwd.jpg", "a/../../x.jpg", "a//x.jpg", "/a/x.jpg", "a/./x.jpg", "a\\b/x.jpg", "a/x\n.jpg"]
)
def test_a_key_that_would_leave_its_folder_is_refused(key: str) -> None:
    with pytest.raises(InvalidData, match="Unsafe key"):
        take_stock(objects("corgi/1.jpg", key), "s3://data-bucket/dogs/")


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(0, 10), st.text(max_size=3)), max_size=20))
def test_any_listing_is_either_counted_or_refused(listing: list[tuple[str, int, str]]) -> None:
    try:
        _, found = take_stock(listing, "s3://data-bucket/dogs/")
    except InvalidData:
        return
    assert found.image_count >= 2


@pytest.mark.parametrize("uri", [None, 7, "", "dogs", "/home/me", "http://x/y", "s3://", "s3://A_B/c", "s3://x"])
def test_an_address_that_is_none_is_refused_with_the_form_that_is_expected(uri: Any, context: Any) -> None:
    with pytest.raises(InvalidData, match=r"data\.s3_uri .* expected s3://bucket/prefix/"):
        handler({"s3_uri": uri}, context)


def test_a_bucket_that_is_not_there_is_named(aws: Any, context: Any) -> None:
    with pytest.raises(InvalidData, match=r"Cannot list s3://no-such-bucket/x/: .*NoSuchBucket"):
        handler({"s3_uri": "s3://no-such-bucket/x/"}, context)


class ManyObjects:
    """An S3 client with 1,000 classes of 100 pictures."""

    def get_paginator(self, operation: str) -> ManyObjects:
        return self

    def paginate(self, Bucket: str, Prefix: str) -> Any:
        for page in range(100):
            names = [
                f"{Prefix}class {index // 100:03}/{index % 100:03}.jpg"
                for index in range(page * 1000, page * 1000 + 1000)
            ]
            yield {"Contents": [{"Key": name, "Size": 9, "ETag": f'"{name}"'} for name in names]}

    def get_object(self, Bucket: str, Key: str, Range: str) -> Any:
        self.read = getattr(self, "read", 0) + 1
        return {"Body": Head()}


class Head:
    def read(self, size: int) -> bytes:
        return JPEG


def test_a_hundred_thousand_pictures_are_checked_with_a_bounded_number_of_reads(
    monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    s3 = ManyObjects()
    monkeypatch.setattr(check_data, "s3", lambda: s3)
    started = time.process_time()
    result = handler({"s3_uri": "s3://data-bucket/"}, context)
    assert (result["class_count"], result["image_count"]) == (1000, 100_000)
    assert s3.read == check_data.SAMPLE_SIZE
    assert time.process_time() - started < 60
    assert sum(map(len, result["warnings"])) < 10_000


@pytest.mark.slow
def test_a_hundred_thousand_pictures_are_checked_within_the_functions_memory(
    monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    s3 = ManyObjects()
    monkeypatch.setattr(check_data, "s3", lambda: s3)
    tracemalloc.start()
    try:
        handler({"s3_uri": "s3://data-bucket/"}, context)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{peak / 2**20:.0f} MiB for 100,000 pictures")
    assert peak < 256 * 2**20, "a quarter of the function's 1024 MB"


@pytest.mark.parametrize("pictures", [FLAT, SPLIT], ids=["flat", "split"])
def test_the_marker_of_a_complete_data_set_changes_nothing(check: Any, pictures: dict[str, bytes]) -> None:
    before = check(pictures)
    assert check({**pictures, "_SUCCESS": b"", f"{next(iter(pictures)).rsplit('/', 1)[0]}/_SUCCESS": b""}) == before
