"""The kept definition: the built one, never a stale one, and the SDK is imported only for a new one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workflow import definition
from workflow.config import Config
from workflow.deployment import rendered

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rendered, "FOLDER", tmp_path / "definitions")
    return tmp_path / "definitions"


def configured(**sections: dict[str, object]) -> Config:
    return Config.model_validate(sections)


def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the projects whose definitions are built from now on."""
    names: list[str] = []

    def render(config: Config) -> str:
        names.append(config.project.name)
        return f"definition of {config.project.name} at {config.training.epochs} epochs"

    monkeypatch.setattr(definition, "render", render)
    return names


def test_it_is_what_is_built() -> None:
    assert rendered.rendered(Config()) == definition.render(Config())
    assert rendered.rendered(Config()) == definition.render(Config())


def test_it_is_built_once_for_the_same_settings_and_again_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    names = built(monkeypatch)
    first = [rendered.rendered(configured(project={"name": name})) for name in ("dogs", "cats", "dogs", "dogs")]
    assert names == ["dogs", "cats"]
    assert first[0] == first[2] == first[3] != first[1]
    other = configured(project={"name": "dogs"}, training={"epochs": Config().training.epochs + 1})
    assert rendered.rendered(other) != first[0]


def test_it_is_built_again_after_a_change_of_code_or_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = rendered.fingerprint(Config())
    assert rendered.fingerprint(Config()) == before
    monkeypatch.setattr(rendered, "_SDK", ("stepfunctions",))
    assert rendered.fingerprint(Config()) != before
    package = tmp_path / "package"
    (package / "definition").mkdir(parents=True)
    monkeypatch.setattr(rendered, "_PACKAGE", package)
    seen = {rendered.fingerprint(Config())}
    for text in ("one", "two"):
        (package / "definition" / "states.py").write_text(text)
        seen.add(rendered.fingerprint(Config()))
    (package / "definition" / "states.py").rename(package / "states.py")
    seen.add(rendered.fingerprint(Config()))
    assert len(seen) == 4


def test_only_the_last_few_are_kept(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    built(monkeypatch)
    for number in range(rendered.KEPT + 3):
        rendered.rendered(configured(project={"name": f"dogs-{number}"}))
    assert len(list(folder.iterdir())) == rendered.KEPT


def test_where_nothing_can_be_kept_it_is_built_each_time(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    names = built(monkeypatch)
    folder.write_text("no folder")
    assert rendered.rendered(Config()) == rendered.rendered(Config())
    assert len(names) == 2


def test_one_that_is_forgotten_while_it_is_read_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    built(monkeypatch)
    text = rendered.rendered(Config())
    read = Path.read_text

    def read_and_forget(self: Path, encoding: str | None = None) -> str:
        found = read(self, encoding)
        if self.parent == folder:
            self.unlink()
        return found

    monkeypatch.setattr(Path, "read_text", read_and_forget)
    assert rendered.rendered(Config()) == text
    assert list(folder.iterdir()) == []


def test_a_kept_definition_is_read_without_the_sdk(folder: Path) -> None:
    rendered.rendered(Config())
    program = (
        "import sys; from pathlib import Path; from workflow.config import Config;"
        f"from workflow.deployment import rendered; rendered.FOLDER = Path({str(folder)!r});"
        "rendered.rendered(Config()); print([name for name in ('sagemaker', 'stepfunctions') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"
