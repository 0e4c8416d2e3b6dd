"""docs/reference/fuzz.md says what the suite does."""

from pathlib import Path

from fuzz.targets import REFERENCE, TARGETS, table


def test_the_page_is_the_table() -> None:
    assert REFERENCE.read_text(encoding="utf-8") == table(), "run: python tests/fuzz/targets.py"


def test_every_target_is_fuzzed() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for target in TARGETS:
        assert f'"{target}"' in sources, target


def test_every_lambda_is_a_target() -> None:
    for handler in Path("lambdas").glob("*/handler.py"):
        name = "".join(word.capitalize() for word in handler.parent.name.split("_"))
        assert any(target.startswith(f"{name} ") for target in TARGETS), name
