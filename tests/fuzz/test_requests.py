"""The endpoint's application and process under hostile requests."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from colour_model import model_folder, picture_bytes
from fuzz.server_calls import Application
from fuzz.shapes import ANY_JSON, NUMBERS, ODD_TEXT, damaged
from fuzz.targets import PROFILES, allow, budget
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about what it reads


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> list[bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    sixteen_bits = Image.fromarray(np.linspace(0, 65535, 768, dtype=np.uint16).reshape(24, 32))
    return [
        encoded(noise, "JPEG"),
        encoded(noise, "JPEG", progressive=True, exif=turned),
        encoded(noise.convert("CMYK"), "JPEG"),
        encoded(noise, "PNG"),
        encoded(noise.convert("P"), "PNG", transparency=0),
        encoded(noise.convert("RGBA"), "PNG"),
        encoded(sixteen_bits, "PNG"),
        encoded(noise, "WEBP"),
        encoded(noise.convert("RGBA"), "WEBP", lossless=True),
        encoded(noise, "WEBP", save_all=True, append_images=[noise.rotate(90)]),
        encoded(noise, "GIF"),
        encoded(noise, "TIFF"),
    ]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@st.composite
def odd_pngs(draw: st.DrawFn) -> bytes:
    """PNG files whose checksums are right and whose sizes, depths and chunks are anything."""
    side = st.sampled_from([0, 1, 2, 255, 65_535, 2**31 - 1, 2**32 - 1]) | st.integers(0, 3000)
    small = st.integers(0, 255)
    head = struct.pack(">II", draw(side), draw(side)) + bytes(
        [draw(st.sampled_from([1, 2, 4, 8, 16]) | small), draw(st.sampled_from([0, 2, 3, 4, 6]) | small)]
        + [draw(st.sampled_from([0, 0, 0, 7])) for _ in range(3)]
    )
    kinds = st.sampled_from([b"IDAT", b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"eXIf", b"tEXt", b"zTXt", b"acTL", b"fdAT"])
    content = st.binary(max_size=80) | st.binary(max_size=2000).map(zlib.compress)
    parts = [chunk(draw(kinds), draw(content)) for _ in range(draw(st.integers(0, 5)))]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(parts) + chunk(b"IEND", b"")


PICTURES = damaged(seeds()) | odd_pngs() | st.binary(max_size=400)
PICTURE_TYPES = st.sampled_from([b"image/png", b"image/jpeg", b"application/x-image", b"IMAGE/WEBP; q=1"])
BASE64 = st.sampled_from([base64.b64encode(seed).decode() for seed in (*seeds(), b"", b"\0" * 99)])


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    application = Application(tmp_path_factory.mktemp("served") / "model")
    yield application
    application.close()


@PROFILES
def test_any_picture_is_classified_or_refused(application: Application, profile: str) -> None:
    @budget("pictures", profile)
    @given(PICTURES, PICTURE_TYPES)
    def check(picture: bytes, content_type: bytes) -> None:
        allow("pictures", application.outcome(picture, [(b"content-type", content_type)]))

    check()


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    fields = {"image": BASE64 | ANY_JSON, "top_k": NUMBERS | ANY_JSON}
    document = draw(st.fixed_dictionaries({}, optional=fields) | ANY_JSON)
    if isinstance(document, dict) and draw(st.integers(0, 5)) == 0:
        document[draw(ODD_TEXT)] = draw(ANY_JSON)
    text = json.dumps(document).encode()
    return draw(damaged([text])) if draw(st.integers(0, 3)) == 0 else text


@PROFILES
def test_any_document_is_answered_or_refused(application: Application, profile: str) -> None:
    @budget("documents", profile)
    @given(documents())
    def check(document: bytes) -> None:
        allow("documents", application.outcome(document, [(b"content-type", b"application/json")]))

    check()


def test_a_document_of_brackets_or_digits_alone_is_refused(application: Application) -> None:
    for body in (b"[" * 100_000, b'{"image":' * 50_000, b"9" * 100_000, b'{"top_k": ' + b"9" * 5000 + b"}"):
        outcome = application.outcome(body, [(b"content-type", b"application/json")])
        assert outcome in ("400 InvalidJson", "400 InvalidRequest")


KNOWN_HEADERS = (
    b"content-type", b"content-length", b"accept", b"x-amzn-sagemaker-custom-attributes", b"transfer-encoding",
    b"expect", b"content-encoding", b"host", b"connection",
)  # fmt: skip
HEADER_VALUES = (
    st.binary(max_size=60)
    | st.sampled_from([b"application/json", b"image/png", b"*/*", b"top_k=2", b"top_k=" + b"9" * 4000, b"a," * 3000])
    | st.integers().map(lambda number: str(number).encode())
)
METHODS = st.sampled_from(["POST"] * 6 + ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "", "post"])
PATHS = st.sampled_from(["/invocations"] * 6 + ["/ping", "/", "/invocations/", "/../etc/passwd", "//ping", "/%00", ""])
PIECES = st.lists(st.sampled_from([picture_bytes(), b"{}", b""]) | st.binary(max_size=99), min_size=1, max_size=4)


@PROFILES
def test_any_request_is_answered(application: Application, profile: str) -> None:
    headers = st.lists(st.tuples(st.sampled_from(KNOWN_HEADERS) | st.binary(max_size=20), HEADER_VALUES), max_size=6)

    @budget("requests", profile)
    @given(METHODS, PATHS, headers, PIECES)
    def check(method: str, path: str, headers: list[tuple[bytes, bytes]], pieces: list[bytes]) -> None:
        allow("requests", application.outcome(pieces, headers, method, path))

    check()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The server as SageMaker starts it, and its port."""
    folder = tmp_path_factory.mktemp("opt-ml")
    model_folder(folder / "model")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "SAGEMAKER_BASE_DIR": str(folder),
        "SAGEMAKER_BIND_TO_PORT": str(port),
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "inference.server", "serve"], env=environment, stdout=log)
    deadline = time.monotonic() + 60
    while exchange(port, PING) != "200":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield server, port
    server.kill()
    server.wait()


PING = b"GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def exchange(port: int, sent: bytes, patience_seconds: float = 15) -> str:
    """Send bytes and no more; return the status of the first answer, or `nothing`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
            connection.sendall(sent)
            connection.settimeout(patience_seconds)
            answer = connection.recv(4096)
    except (ConnectionError, TimeoutError):
        return "nothing"
    return answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/1.1 ") else "nothing"


@PROFILES
def test_any_bytes_on_the_wire_leave_the_server_serving(
    process: tuple[subprocess.Popen[bytes], int], profile: str
) -> None:
    server, port = process
    picture = picture_bytes()
    whole = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n%s" % (
        len(picture),
        picture,
    )
    chunked = (
        b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(picture), picture)
    )
    lies = (
        b"POST /invocations HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\nx",
        b"POST /invocations HTTP/1.1\r\nhost: x\r\n" + b"x-long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    )

    @budget("bytes on the wire", profile)
    @given(damaged([whole, chunked, PING, *lies]) | st.binary(max_size=200))
    def check(sent: bytes) -> None:
        allow("bytes on the wire", exchange(port, sent, patience_seconds=0.1))
        assert exchange(port, PING) == "200"
        assert server.poll() is None

    check()
    assert exchange(port, whole) == "200"
