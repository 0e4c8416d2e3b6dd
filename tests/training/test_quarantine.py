"""Pictures as they come: every oddity is a real file, made here."""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from inference.contract import InputContract
from training import data, quarantine, reading
from training.data import DataError, Found, augmented, find, plain, scan, split
from training.distributed import Worker
from training.main import main
from training.reading import Reading
from training.settings import Settings

INPUT = InputContract(32, 36, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
T = TypeVar("T")
ALONE = Worker("localhost", 0, 1, torch.device("cpu"))


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def a_picture(mode: str = "RGB", size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 1200, dtype=np.uint16).reshape(30, 40))


def turned() -> dict[str, object]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif}


def png_header_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims this many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


USABLE: dict[str, Callable[[], bytes]] = {
    "a.png": lambda: encoded(a_picture(), "PNG"),
    "a.jpg": lambda: encoded(a_picture(), "JPEG"),
    "a.webp": lambda: encoded(a_picture(), "WEBP"),
    "LOUD.JPEG": lambda: encoded(a_picture(), "JPEG"),
    "really-webp.PNG": lambda: encoded(a_picture(), "WEBP"),
    "really-png.jpg": lambda: encoded(a_picture(), "PNG"),
    "progressive.jpg": lambda: encoded(a_picture(), "JPEG", progressive=True),
    "grey.jpg": lambda: encoded(a_picture("L"), "JPEG"),
    "one-bit.png": lambda: encoded(a_picture("1"), "PNG"),
    "palette.png": lambda: encoded(a_picture("P"), "PNG"),
    "palette-transparent.png": lambda: encoded(a_picture("P"), "PNG", transparency=0),
    "cmyk.jpg": lambda: encoded(a_picture("CMYK"), "JPEG"),
    "sixteen-bits.png": lambda: encoded(sixteen_bits(), "PNG"),
    "alpha.png": lambda: encoded(a_picture("RGBA"), "PNG"),
    "grey-alpha.png": lambda: encoded(a_picture("LA"), "PNG"),
    "alpha.webp": lambda: encoded(a_picture("RGBA"), "WEBP"),
    "turned.jpg": lambda: encoded(a_picture(), "JPEG", **turned()),
    "tiny.png": lambda: encoded(a_picture(size=(1, 1)), "PNG"),
    "thin.png": lambda: encoded(a_picture(size=(3000, 1)), "PNG"),
    "huge.jpg": lambda: encoded(Image.new("RGB", (6000, 4000)), "JPEG"),
    "junk at the end.jpg": lambda: encoded(a_picture(), "JPEG") + b"junk" * 100,
    "Zwergpinscher für Größen 犬 \N{DOG FACE}.png": lambda: encoded(a_picture(), "PNG"),
    "two  spaces, 'quotes' & %20.jpg": lambda: encoded(a_picture(), "JPEG"),
    "animated.webp": lambda: encoded(a_picture(), "WEBP", save_all=True, append_images=[a_picture(seed=1)]),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero-bytes.jpg": (lambda: b"", "the file is empty"),
    "truncated.jpg": (lambda: encoded(a_picture(size=(99, 99)), "JPEG")[:-500], "the JPEG picture is damaged"),
    "truncated.png": (lambda: encoded(a_picture(), "PNG")[:-500], "the PNG picture is damaged"),
    "truncated.webp": (lambda: encoded(a_picture(size=(99, 99)), "WEBP")[:-500], "WEBP picture"),
    "header only.png": (lambda: encoded(a_picture(), "PNG")[:20], "PNG"),
    "page.jpg": (lambda: b"<html>404 Not Found</html>", "not a JPEG, PNG or WEBP picture"),
    "gif.jpg": (lambda: encoded(a_picture("P"), "GIF"), "not a JPEG, PNG or WEBP picture"),
    "bomb.png": (lambda: png_header_of(9_000, 9_000), "9000 x 9000 pixels"),
    "giant-bomb.png": (lambda: png_header_of(60_000, 60_000), "too large"),
}


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def flat(root: Path, per_class: int = 20) -> Path:
    for k, name in enumerate(("cat", "dog")):
        for i in range(per_class):
            write(root / name / f"{i}.png", encoded(Image.new("RGB", (8, 8), (100 * k + i, 0, 0)), "PNG"))
    return root


def reading_of(found: Found, rank: int = 0, world_size: int = 1) -> Reading:
    return Reading(found, Settings(image_size=32), rank, world_size)


def left_out(root: Path) -> dict[str, str]:
    found = find(root)
    return {found.name(picture): why for picture, why in quarantine.bad_files(reading_of(found), ALONE, 2).items()}


@pytest.mark.parametrize("name", USABLE)
def test_an_odd_picture_is_trained_on_and_evaluated(tmp_path: Path, name: str) -> None:
    write(tmp_path / "cat" / name, USABLE[name]())
    (tmp_path / "dog").mkdir()
    (picture,) = find(tmp_path).files
    assert reading.defect(picture) == ""
    for x_CHW in (augmented(picture, INPUT, (0, 0, 1)), plain(picture, INPUT)):
        assert x_CHW.shape == (3, 32, 32)
        assert np.isfinite(x_CHW).all()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_left_out_and_says_why(tmp_path: Path, name: str) -> None:
    content, reason = BAD[name]
    write(flat(tmp_path) / "cat" / name, content())
    ((bad, why),) = left_out(tmp_path).items()
    assert bad == f"cat/{name}"
    assert reason in why


def test_the_marker_of_a_complete_data_set_is_neither_a_picture_nor_a_bad_file(tmp_path: Path) -> None:
    before = scan(flat(tmp_path))
    for folder in (tmp_path, tmp_path / "cat"):
        write(folder / "_SUCCESS", b"")
    assert left_out(tmp_path) == {}
    assert scan(tmp_path) == before


def test_the_others_are_split_as_if_the_bad_files_were_not_there(tmp_path: Path) -> None:
    before = scan(flat(tmp_path))
    for name, (content, _) in BAD.items():
        write(tmp_path / "dog" / name, content())
    found = find(tmp_path)
    assert len(found.files) == 40 + len(BAD)
    bad = quarantine.bad_files(reading_of(found), ALONE, 2)
    assert split(quarantine.without(found, bad, 0.5)) == before


def test_every_process_decodes_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(flat(tmp_path) / "cat" / "zero.png", b"")
    found = find(tmp_path)
    monkeypatch.setattr(quarantine, "require_agreement", lambda *_: None)
    flags = []
    monkeypatch.setattr(quarantine, "gather_rows", lambda _, rows: flags.append(rows) or rows)
    decoded = []
    monkeypatch.setattr(data, "pixels", lambda picture, _: decoded.append(picture) or np.zeros((32, 32, 3), np.uint8))
    for rank in (0, 1):
        quarantine.bad_files(reading_of(found, rank, 2), Worker("a", rank, 2, torch.device("cpu")), 1)
    assert len(decoded) == len(set(decoded)) == len(found.files)


def test_too_many_bad_files_fail_the_job_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (content, _) in BAD.items():
        write(flat(tmp_path / "data") / "cat" / name, content())
    flags = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--weights", "package"]
    with pytest.raises(SystemExit, match="1"):
        main(flags)
    failure = (tmp_path / "out" / "failure").read_text()
    assert "9 of 49 files cannot be used as pictures, --max-bad-share allows 5.0%: cat/bomb.png (the picture" in failure
    assert failure.count("cat/") == quarantine.MAX_NAMED
    assert "and 4 more" in failure
    assert "Traceback" not in capsys.readouterr().err


def test_the_allowed_share_is_inclusive(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        write(flat(tmp_path, 19) / "cat" / name, b"")
    found = find(tmp_path)
    bad = quarantine.bad_files(reading_of(found), ALONE, 1)
    assert len(quarantine.without(found, bad, 0.05).files) == 38
    with pytest.raises(DataError, match=r"2 of 40 files .* allows 4\.9%"):
        quarantine.without(found, bad, 0.049)


def test_two_good_pictures_and_bad_ones_are_enough_for_a_class(tmp_path: Path) -> None:
    flat(tmp_path)
    for i in range(2):
        write(tmp_path / "lynx" / f"{i}.png", encoded(a_picture(seed=i), "PNG"))
    write(tmp_path / "lynx" / "aaa.png", b"")
    found = find(tmp_path)
    pictures = split(quarantine.without(found, quarantine.bad_files(reading_of(found), ALONE, 1), 0.05))
    lynx = pictures.classes.index("lynx")
    assert [sum(p.label == lynx for p in part) for part in (pictures.train, pictures.valid, pictures.test)] == [1, 0, 1]


def test_a_class_of_bad_files_alone_is_refused_by_name(tmp_path: Path) -> None:
    write(flat(tmp_path) / "lynx" / "a.png", b"")
    found = find(tmp_path)
    with pytest.raises(DataError, match=r"no train pictures .* lynx"):
        split(quarantine.without(found, quarantine.bad_files(reading_of(found), ALONE, 1), 0.05))


def test_links_to_pictures_count_and_links_to_nothing_or_in_a_circle_do_not(tmp_path: Path) -> None:
    flat(tmp_path / "data")
    kept = write(tmp_path / "elsewhere" / "real.png", encoded(a_picture(), "PNG"))
    cat = tmp_path / "data" / "cat"
    (cat / "linked.png").symlink_to(kept)
    (cat / "dangling.png").symlink_to(tmp_path / "nothing.png")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    (cat / "circle").symlink_to(cat)
    (tmp_path / "data" / "lynx").symlink_to(kept.parent)
    write(kept.with_name("other.png"), encoded(a_picture(seed=1), "PNG"))
    found = find(tmp_path / "data")
    names = {found.name(picture) for picture in found.files}
    assert len(names) == 43
    assert {"cat/linked.png", "lynx/real.png", "lynx/other.png"} < names
    assert left_out(tmp_path / "data") == {}


def test_hidden_files_and_folders_and_other_types_are_no_pictures(tmp_path: Path) -> None:
    before = find(flat(tmp_path))
    content = encoded(a_picture(), "PNG")
    for name in ("cat/.hidden.png", "cat/.cache/thumb.png", ".git/x.png", "cat/notes.txt", "cat/a.gif", "stray.png"):
        write(tmp_path / name, content)
    (tmp_path / "cat" / "folder.png").mkdir()
    assert find(tmp_path) == before


def test_a_name_that_is_not_unicode_is_read_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = b"\xe9t\xe9.png".decode("utf-8", "surrogateescape")
    write(flat(tmp_path) / "cat" / name, b"")
    found = find(tmp_path)
    bad = quarantine.bad_files(reading_of(found), ALONE, 1)
    quarantine.say([{"picture": found.name(p), "reason": why} for p, why in bad.items()], [])
    assert capsys.readouterr().out == "left out: cat/\\udce9t\\udce9.png: the file is empty\n"
    assert split(found).manifest_sha256


def test_test_pictures_that_are_train_pictures_too_are_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat(tmp_path / "train")
    for name in ("cat", "dog"):
        write(tmp_path / "test" / name / "new.png", encoded(a_picture(seed=len(name)), "PNG"))
    assert quarantine.copies(scan(tmp_path)) == []
    write(tmp_path / "test" / "cat" / "known.png", (tmp_path / "train" / "dog" / "7.png").read_bytes())
    found = find(tmp_path)
    quarantine.say([], [found.name(picture) for picture in quarantine.copies(split(found))])
    assert capsys.readouterr().out.startswith("warning: 1 test pictures are train pictures too")


def test_the_log_is_short_however_many_files_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    quarantine.say([{"picture": f"cat/{i}.png", "reason": "the file is empty"} for i in range(5000)], [])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == quarantine.MAX_LOGGED + 1
    assert lines[-1] == "left out: 4950 more, listed in evaluation.json"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_classes_and_a_hundred_thousand_pictures_are_taken_stock_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = encoded(a_picture(size=(64, 64)), "JPEG")
    for k in range(1000):
        folder = tmp_path / f"class {k:04}"
        folder.mkdir()
        for i in range(100):
            # What follows the end of a JPEG is not decoded, so each file has bytes of its own.
            (folder / f"{i:03}.jpg").write_bytes(base + f"{k} {i}".encode())
    figures: dict[str, float] = {}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = work()
        figures[f"{name}_seconds"] = round(time.perf_counter() - started, 1)
        return result

    tracemalloc.start()
    found = timed("find", lambda: find(tmp_path))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    figures |= {"held_megabytes": round(held / 1e6), "peak_megabytes": round(peak / 1e6)}
    assert timed("verify", lambda: quarantine.bad_files(reading_of(found), ALONE, 2)) == {}
    pictures = timed("split", lambda: split(found))
    with capsys.disabled():
        print("\n100,000 pictures:", json.dumps(figures))
    assert len(found.files) == 100_000
    assert len(pictures.classes) == 1000
    assert len(pictures.train) + len(pictures.valid) + len(pictures.test) == 100_000
    assert peak < 1e9
