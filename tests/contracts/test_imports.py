"""Import rules that import-linter cannot see: each Lambda stands alone, and our packages are the ones imported."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANDLERS = sorted((ROOT / "lambdas").glob("*/handler.py"))
LAMBDA_MAY_IMPORT = {"aws_lambda_powertools", "boto3", "botocore", "fastjsonschema"}


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda path: path.parent.name)
def test_a_lambda_imports_the_standard_library_boto3_and_what_its_zip_vendors(handler: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(handler.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported - set(sys.stdlib_module_names) - LAMBDA_MAY_IMPORT == set()


def test_there_are_lambdas_to_check() -> None:
    assert len(HANDLERS) >= 7


@pytest.mark.parametrize("package", ["workflow", "training", "inference", "examples"])
def test_the_package_imported_is_ours_and_not_a_namesake(package: str) -> None:
    module = importlib.import_module(package)
    assert Path(str(module.__file__)).is_relative_to(ROOT)


@pytest.mark.parametrize("module", ["workflow.cli", "workflow.config"])
def test_the_command_line_starts_without_an_sdk(module: str) -> None:
    heavy = ("boto3", "botocore", "sagemaker", "stepfunctions", "moto", "torch", "numpy")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


_SDKS = ("boto3", "sagemaker", "stepfunctions", "moto", "torch", "pygraphviz")


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        (["--help"], set()),
        (["init", "kelpie.toml"], set()),
        (["cost"], set()),
        (["verify-aws", "no-such"], set()),
        (["preflight"], {"boto3", "sagemaker", "stepfunctions"}),
        (["local", "status"], {"boto3"}),
        (["start", "--local", "--input", "{"], set()),
        (["list"], {"boto3"}),
        (["describe"], {"boto3"}),
        (["predict", __file__], {"boto3"}),
        (["graph"], {"boto3", "sagemaker", "stepfunctions"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_imports_only_the_sdks_that_it_needs(tmp_path: Path, arguments: list[str], needs: set[str]) -> None:
    code = (
        "import sys; from workflow.__main__ import main\n"
        f"sys.argv = ['kelpie', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('imported', sorted(set({_SDKS!r}) & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KELPIE_HOME": str(tmp_path / ".kelpie")}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=60,
        check=True,
    )
    imported = set(ast.literal_eval(result.stderr.rpartition("imported ")[2]))
    assert imported <= needs
