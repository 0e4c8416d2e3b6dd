"""What holds for every Lambda, read from the zip and the layer that are deployed."""

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
IN_THE_LAYER = {"aws_lambda_powertools"}


@pytest.fixture(scope="session")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What /opt is on AWS: the layer, unpacked."""
    folder = tmp_path_factory.mktemp("opt")
    unpack(packaging.layer_archive(), folder)
    return folder


def unpack(asset: packaging.Asset, folder: Path) -> None:
    assert isinstance(asset.content, bytes)
    with zipfile.ZipFile(io.BytesIO(asset.content)) as archive:
        archive.extractall(folder)


def imports_of(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("name", LAMBDAS)
def test_a_lambda_imports_only_what_is_in_its_zip_its_layer_or_in_the_runtime(name: str) -> None:
    imported = imports_of(Path("lambdas", name, "handler.py").read_text("utf-8"))
    in_the_zip = set(packaging.VENDORED.get(name, ()))
    assert imported - set(sys.stdlib_module_names) <= IN_THE_RUNTIME | IN_THE_LAYER | in_the_zip


@pytest.mark.parametrize("name", LAMBDAS)
def test_a_lambda_says_its_environment_permissions_timeout_and_memory(name: str) -> None:
    documented = ast.get_docstring(ast.parse(Path("lambdas", name, "handler.py").read_text("utf-8"))) or ""
    for word in ("Environment: ", "IAM: ", "Timeout ", " memory "):
        assert word in documented


@pytest.mark.parametrize("name", LAMBDAS)
def test_the_deployed_zip_loads_without_a_region_and_makes_no_client(name: str, tmp_path: Path, opt: Path) -> None:
    unpack(packaging.lambda_archive(name), tmp_path)
    program = (
        "import boto3, handler, aws_lambda_powertools as powertools;"
        "assert boto3.DEFAULT_SESSION is None, 'a client was made at import';"
        "print(handler.__file__, powertools.__file__);"
        "import sys; print(*sys.modules, file=sys.stderr)"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}:{opt / 'python'}"}
    ran = subprocess.run(
        [sys.executable, "-B", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [
        str(tmp_path / "handler.py"),
        str(opt / "python" / "aws_lambda_powertools" / "__init__.py"),
    ]
    imported = ran.stderr.split()
    # A cold start imports these each time; the front door's are for its routes.
    assert sum(module.startswith("aws_lambda_powertools") for module in imported) <= (115 if name == "classify" else 45)
    assert not {"pydantic", "aws_xray_sdk", "workflow"} & set(imported)
