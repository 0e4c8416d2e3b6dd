"""What the documents tell a reader to type works: their commands are run, and all others at least exist.

The pages in `RUN` are followed from top to bottom in a fresh copy of the repository, each console block's commands one
after the other in one shell. A command ends with 0, or with what its comment says: `# exits with 2`.

Not run: `make test`, `make test-all` and `make check`, which run this test themselves or are run beside it. `make demo`
and `make install` are run without installing: the copy uses the environment that the tests run in.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.main import get_command

from workflow.cli import app

ROOT = Path(__file__).parents[2]
FEW_DOGS = ".venv/bin/kelpie example dogs build/demo/dogs --images 300"
RUN = {
    "README.md": (),
    "docs/tutorial.md": (),
    "docs/how-to/add-a-state.md": (),
    "docs/how-to/change-the-backbone.md": (FEW_DOGS,),
    "docs/how-to/spot-drill.md": (FEW_DOGS,),
    "docs/how-to/start-from-a-notebook.md": (FEW_DOGS,),
    "docs/how-to/use-your-own-handler.md": (FEW_DOGS,),
}
"""The pages that are followed, with what a page takes for granted."""

SECONDS_PER_PAGE = 1800

_NOT_RUN = re.compile(r"make (test|test-all|check)\b")
_INSTALLS = re.compile(r"make (demo|install)\b")
_EXITS_WITH = re.compile(r"# exits with (\d+)$", re.MULTILINE)
_HEREDOC = re.compile(r"<<'?(\w+)'?")
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^ *(?:\$ |try: |run: )?(?:\.venv/bin/)?kelpie (.+)$", re.MULTILINE)
_MENTIONED = re.compile(r"`(?:\.venv/bin/)?kelpie ([^`]+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


class Step(NamedTuple):
    """One command of a console block."""

    command: str
    exit_code: int


def shipped_files() -> list[Path]:
    """What a clone would have, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def blocks(text: str, *languages: str) -> list[str]:
    """The code blocks in one of these languages, without the indent of the list that they stand in."""
    found = _BLOCK.findall(text)
    return [re.sub(f"^{indent}", "", body, flags=re.MULTILINE) for indent, kind, body in found if kind in languages]


def steps(text: str) -> list[Step]:
    """The commands of a page's console blocks; a here-document belongs to its command."""
    found = []
    for block in blocks(text, "console"):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.strip():
                continue
            command = line.removeprefix("$ ")
            heredoc = _HEREDOC.search(command)
            if heredoc:
                body = takewhile(lambda text, end=heredoc[1]: text != end, lines)
                command = "\n".join([command, *body, heredoc[1]])
            exits_with = _EXITS_WITH.search(command)
            found.append(Step(command, int(exits_with[1]) if exits_with else 0))
    return found


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A copy of the repository as a clone would have it, with this environment as its `.venv`."""
    folder = tmp_path / "kelpie"
    for name in shipped_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    yield folder
    bash(folder, ".venv/bin/kelpie local down")


def bash(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a copy, with the copy's own code and the copy's own local cloud."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KELPIE_", "PYTEST_"))}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_PER_PAGE,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_PER_PAGE + 60)
@pytest.mark.parametrize("page", RUN)
def test_a_reader_can_follow_the_page(clone: Path, page: str) -> None:
    told = [step for step in steps((clone / page).read_text(encoding="utf-8")) if not _NOT_RUN.match(step.command)]
    assert told
    script = []
    for step in [*(Step(command, 0) for command in RUN[page]), *told]:
        command = _INSTALLS.sub(r"make -o .venv/.installed \1", step.command)
        wrong = shlex.quote(f"expected exit code {step.exit_code} of: {step.command}")
        script += [f"echo {shlex.quote('$ ' + command)}", command]
        script.append(f"code=$?; if [ $code -ne {step.exit_code} ]; then echo exit code $code, {wrong}; exit 1; fi")
    result = bash(clone, "\n".join(script))
    assert result.returncode == 0, result.stdout[-6000:]


def test_exit_codes_and_here_documents_belong_to_their_command() -> None:
    page = "```console\n$ one\ntwo  # exits with 2\ncat > x <<'END'\na\nEND\n```\n\n```text\nthree\n```\n"
    assert steps(page) == [
        Step("one", 0),
        Step("two  # exits with 2", 2),
        Step("cat > x <<'END'\na\nEND", 0),
    ]


def kelpie_commands(text: str) -> set[str]:
    """What follows `kelpie` wherever a document tells to type it, or only mentions it."""
    in_blocks = (line for block in blocks(text, "console", "text", "bash", "") for line in _TYPED.findall(block))
    return {*in_blocks, *_MENTIONED.findall(_BLOCK.sub("", text))}


def complaint(command: str) -> str:
    """What is wrong with a command's name or options; empty when nothing is."""
    words = list(
        takewhile(lambda word: not re.match(r"[|<>&;…]|\.\.\.|1>|2>", word), shlex.split(command, comments=True))
    )
    current: Any = get_command(app)
    context = current.make_context("kelpie", [], resilient_parsing=True)
    while words and hasattr(current, "get_command") and not words[0].startswith("-"):
        name = words.pop(0)
        current = current.get_command(context, name)
        if current is None:
            return f"there is no command {name!r}"
        context = current.make_context(name, [], parent=context, resilient_parsing=True)
    known = {
        option for parameter in current.get_params(context) for option in (*parameter.opts, *parameter.secondary_opts)
    }
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    return f"there is no option {', '.join(unknown)}" if unknown else ""


def documents() -> list[Path]:
    return [name for name in shipped_files() if name.suffix == ".md"]


def test_every_kelpie_command_in_the_documents_exists_with_its_options() -> None:
    generated = Path("docs/reference/command-line.md")  # from the commands themselves, as patterns
    written = [name for name in documents() if name != generated]
    found = {name: kelpie_commands((ROOT / name).read_text(encoding="utf-8")) for name in written}
    assert sum(map(len, found.values())) > 50
    wrong = {
        f"{name}: kelpie {command}": said
        for name, commands in found.items()
        for command in commands
        if (said := complaint(command))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    "command", ["restart --local", "start --lokal", "local fault spot", "graph --format=svg --colour"]
)
def test_a_command_or_option_that_does_not_exist_is_found(command: str) -> None:
    assert complaint(command)


def links(text: str) -> list[str]:
    """The relative links of a document, without what only looks like one in code."""
    return _LINK.findall(re.sub(r"`[^`]*`", "", _BLOCK.sub("", text)))


def test_every_relative_link_in_the_documents_leads_somewhere() -> None:
    found = [(name, link) for name in documents() for link in links((ROOT / name).read_text(encoding="utf-8"))]
    assert len(found) > 30
    assert [f"{name}: {link}" for name, link in found if not (ROOT / name.parent / link).exists()] == []
