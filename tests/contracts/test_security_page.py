"""The security review names a proof for each of its lines, and the proofs are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from workflow.deployment import template

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/security.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| | ")]
PROOF = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
HANDLERS = sorted((ROOT / "lambdas").glob("*/*.py"))
ANSWERS_CLOUDFORMATION = "champion_marker"
"""The custom resource puts its answer to the URL that CloudFormation signed for it."""


NO_PROOF = ("skip", "skipif", "xfail", "importorskip")
"""What lets a test end well, or not run, without having shown anything."""


def objection(source: str, name: str) -> str:
    """Why the test of this name in a module proves nothing; empty when it may."""
    tree = ast.parse(source)
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        return "does not exist"
    # Its decorators and its body, and what the module does to all of its tests: `pytestmark`, a skip at import.
    of_all = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr | ast.If | ast.Try)]
    for node in (inner for outer in (*found, *of_all) for inner in ast.walk(outer)):
        word = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if word in NO_PROOF:
            return f"may not be run: {word}"
    return ""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def test_it(): assert 1", ""),
        ("@pytest.mark.slow\ndef test_it(): assert 1", ""),
        ("def test_other(): pytest.skip()\ndef test_it(): assert 1", ""),
        ("def test_other(): assert 1", "does not exist"),
        ("@pytest.mark.skip\ndef test_it(): assert 1", "may not be run: skip"),
        ("@pytest.mark.skipif(True, reason='')\ndef test_it(): assert 1", "may not be run: skipif"),
        ("@pytest.mark.xfail(strict=True)\ndef test_it(): assert 1", "may not be run: xfail"),
        (
            "@pytest.mark.parametrize('a', [pytest.param(1, marks=pytest.mark.xfail)])\ndef test_it(a): assert 1",
            "may not be run: xfail",
        ),
        ("def test_it():\n    if 1: pytest.skip('later')\n    assert 1", "may not be run: skip"),
        ("from pytest import skip\ndef test_it(): skip()", "may not be run: skip"),
        ("pytestmark = [pytest.mark.skipif(True, reason='')]\ndef test_it(): assert 1", "may not be run: skipif"),
        ("pytest.importorskip('numpy')\ndef test_it(): assert 1", "may not be run: importorskip"),
    ],
)
def test_a_proof_that_may_be_skipped_or_is_expected_to_fail_is_refused(source: str, said: str) -> None:
    assert objection(source, "test_it") == said


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_a_line_of_the_review_names_a_proof_that_exists(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 5
    proofs = PROOF.findall(cells[4])
    assert proofs
    for file, name in proofs:
        assert not (said := objection((ROOT / file).read_text(encoding="utf-8"), name)), f"{file}::{name} {said}"


def test_the_review_has_the_lines_that_it_promises() -> None:
    assert len(ROWS) >= 12
    for word in ("AmazonSageMakerFullAccess", "Access-Control-Allow-Origin: *", "AmazonS3FullAccess", "no VPC"):
        assert word in PAGE


def test_no_lambda_fetches_a_url() -> None:
    fetching = {"urllib.request", "urllib3", "requests", "http.client", "httpx", "aiohttp", "socket"}
    found = set()
    for file in HANDLERS:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found |= {(file.parent.name, name) for name in names if name in fetching}
    assert {room for room, _ in found} == {ANSWERS_CLOUDFORMATION}


def test_no_lambda_names_an_endpoint_in_its_code() -> None:
    calls = 0
    for file in HANDLERS:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "EndpointName":
                calls += 1
                assert not isinstance(node.value, ast.Constant), f"{file}:{node.value.lineno}"
    assert calls >= 2


def test_no_answer_is_for_every_origin() -> None:
    for file in HANDLERS:
        assert "access-control-allow" not in file.read_text(encoding="utf-8").lower(), file
    resources = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))["Resources"].values()
    origins = [resource["Properties"].get("Cors") for resource in resources if "Url" in resource["Type"]]
    assert [cors for cors in origins if cors] == []
