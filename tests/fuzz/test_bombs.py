"""What is small on its way and huge when read: each in a process whose memory is limited, so that growth is failure."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMITED = """
import resource, sys, time
from pathlib import Path
{imports}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20,) * 2)
started = time.monotonic()
try:
    {call}
except Exception as error:
    print(type(error).__name__, end="")
else:
    print("ok", end="")
assert time.monotonic() - started < {seconds}, "too slow"
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")


def outcome(imports: str, call: str, *arguments: str | Path, megabytes: int, seconds: int = 60) -> str:
    """Run `call` with this much more memory than its imports took; the name of its error, or `ok`."""
    program = LIMITED.format(imports=imports, call=call, megabytes=megabytes, seconds=seconds)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def zeros(path: Path, before: bytes, gigabytes: int) -> Path:
    """A gzip file of `before` and then so many gigabytes of zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(before)
    one = gzip.compress(bytes(2**26), 9, mtime=0)
    with path.open("ab") as packed:
        for _ in range(16 * gigabytes):
            packed.write(one)
    return path


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


UNPACK = "from workflow.local import transfers"
EVIDENCE = "from lambdas.smoke_test.handler import read_pictures"
CHAMPION = "from training import evaluate"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a member of eight gigabytes", tarfile.REGTYPE),
        ("a long name of eight gigabytes", tarfile.GNUTYPE_LONGNAME),
        ("a long link of eight gigabytes", tarfile.GNUTYPE_LONGLINK),
        ("extended headers of eight gigabytes", tarfile.XHDTYPE),
        ("global headers of eight gigabytes", tarfile.XGLTYPE),
        ("a member of an unknown type", b"Z"),
    ],
)
@pytest.mark.slow
def test_an_archive_that_grows_without_end_is_refused_in_little_memory(tmp_path: Path, name: str, kind: bytes) -> None:
    archive = zeros(tmp_path / "model.tar.gz", header("model.onnx", 8 * 2**30, kind), 8)
    assert archive.stat().st_size < 50e6, name
    unpack = "transfers.unpack(Path(sys.argv[1]), Path(sys.argv[2]), 2**30)"
    assert outcome(UNPACK, unpack, archive, tmp_path / "place", megabytes=200) == "UnsafeArchive"
    assert sum(path.stat().st_size for path in (tmp_path / "place").rglob("*")) == 0
    read = "list(read_pictures(open(sys.argv[1], 'rb')))"
    assert outcome(EVIDENCE, read, archive, megabytes=700) in ("InvalidEvidence", "ReadError")
    compare = "assert evaluate.champion(Path(sys.argv[1]), ['cat']).reason"
    assert outcome(CHAMPION, compare, tmp_path, megabytes=500, seconds=120) == "ok"


def test_an_archive_of_very_many_members_is_refused(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "model.tar.gz", "wb", compresslevel=1) as file:
        file.write(header("empty", 0) * 300)
    unpack = "transfers.unpack(Path(sys.argv[1]), Path(sys.argv[2]), 2**30)"
    refused = outcome(
        f"{UNPACK}; transfers._MAX_MEMBERS = 200", unpack, tmp_path / "model.tar.gz", tmp_path / "place", megabytes=200
    )
    assert refused == "UnsafeArchive"
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["empty"]


def a_png(width: int, height: int, colour_type: int = 6, depth: int = 8) -> bytes:
    """A whole PNG of one colour: a few hundred bytes a megapixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels * depth // 8)
    content = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


DECODE = "from inference.preprocessing import decode"
READ = "decode(Path(sys.argv[1]).read_bytes())"


@pytest.mark.parametrize(("colour_type", "depth"), [(6, 8), (4, 16), (0, 16), (2, 8)])
@pytest.mark.slow
def test_the_largest_picture_that_is_taken_costs_a_known_amount_of_memory(
    tmp_path: Path, colour_type: int, depth: int
) -> None:
    (tmp_path / "large.png").write_bytes(a_png(8000, 8000, colour_type, depth))
    assert outcome(DECODE, READ, tmp_path / "large.png", megabytes=1200) == "ok"


@pytest.mark.parametrize("side", [8001, 30_000])
def test_a_picture_of_more_pixels_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    whole = a_png(8, 8)
    bomb = whole[:16] + struct.pack(">II", side, side) + whole[24:29]
    bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + whole[33:]
    (tmp_path / "bomb.png").write_bytes(bomb)
    assert outcome(DECODE, READ, tmp_path / "bomb.png", megabytes=50) == "ImageTooLarge"
