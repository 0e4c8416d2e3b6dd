"""Model archives, evidence and champions from hostile hands; names of objects; contracts."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from colour_model import model_folder, picture_bytes
from fuzz.shapes import ANY_JSON, ODD_TEXT, archives, damaged
from fuzz.targets import PROFILES, allow, budget, outcome_of
from hypothesis import given
from hypothesis import strategies as st

from inference.contract import InvalidContract, ModelContract
from lambdas.smoke_test import handler as smoke_test
from training import evaluate
from workflow.local import transfers

MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((model_folder(tmp_path_factory.mktemp("m")) / "model.json").read_text())
    return read


def outside(root: Path) -> dict[str, Any]:
    """Everything below `root` but not in `root/in/place`: mode, links and content."""
    found = {}
    for path in sorted(root.rglob("*")):
        if "place" not in path.relative_to(root).parts:
            status = path.lstat()
            found[str(path)] = (
                status.st_mode,
                path.is_file() and status.st_nlink,
                path.is_file() and path.read_bytes(),
            )
    return found


@PROFILES
def test_an_archive_is_unpacked_in_its_place_or_refused(tmp_path: Path, profile: str) -> None:
    (tmp_path / "in").mkdir()
    for name in ("outside", "in/outside", "escaped", "in/escaped"):
        (tmp_path / name).write_text("as it was")
    before = outside(tmp_path)
    number = iter(range(10**9))

    @budget("model archives", profile)
    @given(archives([b"{}", picture_bytes()]))
    def check(content: bytes) -> None:
        place = tmp_path / "in" / f"place{next(number)}" / "place"
        archive = place.with_name("archive.tar.gz")
        place.mkdir(parents=True)
        archive.write_bytes(content)
        unpacked = outcome_of(lambda: transfers.unpack(archive, place, MAX_BYTES), transfers.UnsafeArchive)
        allow("model archives", unpacked)
        total = 0
        for folder, folders, files in os.walk(place):
            for name in (*folders, *files):
                mode = Path(folder, name).lstat().st_mode
                assert stat.S_ISREG(mode) or stat.S_ISDIR(mode), f"{name} is neither a file nor a folder"
                total += Path(folder, name).lstat().st_size if stat.S_ISREG(mode) else 0
        assert total <= MAX_BYTES
        assert sorted(path.name for path in place.parent.iterdir()) == ["archive.tar.gz", "place"]

    check()
    after = {name: seen for name, seen in outside(tmp_path).items() if "/place" not in name}
    assert after == before


@PROFILES
def test_an_object_is_written_below_its_folder_or_refused(profile: str) -> None:
    part = st.sampled_from(["..", ".", "", "a", "datasets", "\\", "\0", "C:", "~", "犬"]) | st.text(max_size=6)
    keys = st.lists(part, max_size=6).map("/".join)
    folder = Path("/folder")

    @budget("object keys", profile)
    @given(keys, st.sampled_from(["", "datasets", "datasets/", "data", "a/b", "datasets/x/"]) | keys)
    def check(key: str, prefix: str) -> None:
        def place() -> None:
            path = folder / transfers.relative_path(key, prefix)
            assert Path(os.path.normpath(path)).is_relative_to(folder)
            assert path != folder
            assert "\0" not in str(path)

        allow("object keys", outcome_of(place, transfers.TransferFailed))

    check()


@PROFILES
def test_a_contract_is_understood_or_refused(contract: dict[str, Any], tmp_path: Path, profile: str) -> None:
    text = json.dumps(contract).encode()
    paths = [(), ("input",), ("output",)]

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        document: Any = json.loads(text)
        for _ in range(draw(st.integers(1, 3))):
            section = document
            for key in draw(st.sampled_from(paths)):
                section = section.get(key) if isinstance(section, dict) else None
            if isinstance(section, dict):
                section[draw(st.sampled_from([*contract, *contract["input"]]) | ODD_TEXT)] = draw(ANY_JSON)
        return json.dumps(document).encode()

    file = tmp_path / "model.json"

    @budget("model contracts", profile)
    @given(changed() | damaged([text]) | ANY_JSON.map(lambda value: json.dumps(value).encode()))
    def check(content: bytes) -> None:
        file.write_bytes(content)

        def load() -> None:
            ModelContract.from_json(ModelContract.load(file).to_json())

        allow("model contracts", outcome_of(load, InvalidContract))

    check()


def test_a_contract_of_brackets_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    with pytest.raises(InvalidContract, match="cannot read"):
        ModelContract.load(tmp_path)


class Store:
    """S3 with one object."""

    def __init__(self) -> None:
        self.content = b""

    def get_object(self, **_: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.content)}


@PROFILES
def test_evidence_is_read_or_refused(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    store = Store()
    monkeypatch.setattr(smoke_test, "s3", lambda: store)

    @budget("evidence archives", profile)
    @given(archives([picture_bytes(), b""]))
    def check(content: bytes) -> None:
        store.content = content

        def read() -> None:
            for picture in smoke_test.fetch_pictures("s3://artifacts/output.tar.gz"):
                assert {".", ".."}.isdisjoint(picture.name.split("/"))

        allow("evidence archives", outcome_of(read, smoke_test.InvalidEvidence))

    check()


@PROFILES
def test_a_champion_is_read_or_not_comparable(contract: dict[str, Any], tmp_path: Path, profile: str) -> None:
    text = json.dumps(contract).encode()

    @budget("champion archives", profile)
    @given(archives([text, b"[" * 5000, b"{}", b'{"format": NaN}']))
    def check(content: bytes) -> None:
        (tmp_path / "model.tar.gz").write_bytes(content)
        found = evaluate.champion(tmp_path, contract["classes"])
        assert (found.contract is None) == bool(found.reason)
        allow("champion archives", "ok")

    check()
