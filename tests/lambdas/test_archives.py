"""What holds for every Lambda, read from the zip that is deployed."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workflow.deployment import packaging

LAMBDAS = sorted(path.parent.name for path in Path("lambdas").glob("*/handler.py"))
IN_THE_RUNTIME = {"boto3", "botocore"}
VENDORED = {"aws_lambda_powertools", "fastjsonschema"}


def imports_of(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("name", LAMBDAS)
def test_a_lambda_imports_only_what_is_in_its_zip_or_in_the_runtime(name: str) -> None:
    imported = imports_of(Path("lambdas", name, "handler.py").read_text("utf-8"))
    assert imported - set(sys.stdlib_module_names) <= IN_THE_RUNTIME | VENDORED


@pytest.mark.parametrize("name", LAMBDAS)
def test_a_lambda_says_its_environment_permissions_timeout_and_memory(name: str) -> None:
    documented = ast.get_docstring(ast.parse(Path("lambdas", name, "handler.py").read_text("utf-8"))) or ""
    for word in ("Environment: ", "IAM: ", "Timeout ", " memory "):
        assert word in documented


@pytest.mark.parametrize("name", LAMBDAS)
def test_the_deployed_zip_loads_without_a_region_and_makes_no_client(name: str, tmp_path: Path) -> None:
    content = packaging.lambda_archive(name).content
    with zipfile.ZipFile(io.BytesIO(content) if isinstance(content, bytes) else content) as archive:
        archive.extractall(tmp_path)
    program = (
        "import boto3, handler, aws_lambda_powertools as powertools;"
        "assert boto3.DEFAULT_SESSION is None, 'a client was made at import';"
        "print(handler.__file__, powertools.__file__)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-B", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(str(tmp_path)) == 2
