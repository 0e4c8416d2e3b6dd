"""Strategies that more than one target uses: JSON, damage, archives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

ODD_TEXT = st.text(max_size=30) | st.sampled_from(
    ["", "\0", "../../etc/passwd", "/etc/passwd", "\ud800", "x" * 5000, "${DataBucket}", "a\nb", "\u202e", "NaN", "-1"]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 1, 0.0, 3.0, 1e308, 2**31, 2**63, 10**400, float("inf"), float("nan"), True])
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ODD_TEXT, inner, max_size=4),
    max_leaves=12,
)
"""What Python's json module reads, NaN and lone surrogates among it."""


def near(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """Any JSON, mostly an object with some of these keys."""
    return st.dictionaries(st.sampled_from(keys) | ODD_TEXT, ANY_JSON, max_size=len(keys)) | ANY_JSON


def json_safe(value: Any) -> bool:
    """Whether the value survives UTF-8: what arrives over a network did."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, ValueError):
        return False
    return True


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds with up to six changes: bytes replaced, cut out, put in, repeated, or swapped with another's."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(0, 40))
        change = draw(st.sampled_from(["replace", "cut", "put", "repeat", "end", "swap", "numbers"]))
        if change == "replace":
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif change == "cut":
            del content[at : at + length]
        elif change == "put":
            content[at:at] = draw(st.binary(max_size=40))
        elif change == "repeat":
            content[at:at] = content[at : at + length] * draw(st.integers(1, 20))
        elif change == "end":
            del content[at:]
        elif change == "swap":
            other = draw(st.sampled_from(seeds))
            content[at:] = other[min(at, len(other)) :]
        else:
            content[at : at + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"]))
    return bytes(content)


MEMBER_NAMES = st.sampled_from(
    [
        "model.onnx", "model.json", "./model.json", "code/inference.py", "smoke/cat/1.png", "smoke/cat", "a/b/c/d",
        "../escaped", "../../escaped", "a/../../escaped", "/escaped", "//escaped", "..", ".", "", "link", "link/inside",
        "link/../../escaped", "a" * 300, "/".join(["d" * 60] * 80), "Größe 犬", "back\\slash", "nul\0byte",
        "model.json/x",
    ]
) | st.text(max_size=20)  # fmt: skip
LINK_TARGETS = st.sampled_from(
    ["..", "/", "/etc/passwd", "../outside", "model.json", ".", "link", "a/b", "../" * 30 + "etc", "x" * 4000]
)
MEMBER_TYPES = st.sampled_from(
    [
        tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
        tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, b"Z",
    ]
)  # fmt: skip
ODD_NUMBERS = st.sampled_from(["1e400", "nan", "-5", "x", "9" * 30])


@st.composite
def archives(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """A tar.gz of odd members, often damaged before or after its compression."""
    buffer = io.BytesIO()
    kind = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for _ in range(draw(st.integers(0, 6))):
            member = tarfile.TarInfo(draw(MEMBER_NAMES))
            member.type = draw(MEMBER_TYPES)
            member.linkname = draw(LINK_TARGETS) if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            member.mode = draw(st.sampled_from([0o644, 0o4777, 0, 0o777]))
            member.mtime = draw(st.sampled_from([0, 1, 2**33, 2**62]))
            content = draw(st.sampled_from(contents) | st.binary(max_size=600))
            member.size = len(content) if member.type in (tarfile.REGTYPE, tarfile.CONTTYPE, b"Z") else 0
            if kind == tarfile.PAX_FORMAT and draw(st.integers(0, 4)) == 0:
                key = draw(st.sampled_from(["mtime", "size", "path", "GNU.sparse.map", "GNU.sparse.size", "comment"]))
                member.pax_headers = {key: draw(ODD_NUMBERS)}
            try:
                tar.addfile(member, io.BytesIO(content) if member.size else None)
            except (ValueError, UnicodeEncodeError):
                continue  # the writer itself refuses that name
    plain = buffer.getvalue()
    if draw(st.integers(0, 3)) == 0:
        plain = draw(damaged([plain]))
    packed = gzip.compress(plain, 1, mtime=0)
    return draw(damaged([packed])) if draw(st.integers(0, 3)) == 0 else packed
