"""What the documents say is what the newest results say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmark_results import table, write

from benchmarks import tables
from benchmarks.record import RESULTS, read

ROOT = Path(__file__).parents[2]


def test_a_table_has_ratio_share_of_the_limit_and_quality() -> None:
    lines = tables.markdown(table()).splitlines()
    assert lines[2] == "|  | requests/s | x old | % of the model alone | accuracy or agreement | p99 ms |"
    assert lines[4] == "| old | 20.0 (10.0 to 30.0) | 1.00x |  | the baseline |  |"
    assert lines[5] == "| new | 60.0 (50.0 to 150) | 5.00x | 75% | agreement 99.5% | 12.0 |"
    assert lines[6] == "| absent | not measured: needs Java |  |  |  |  |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.001234, "0.00123"), (1.5, "1.50"), (99.95, "100.0"), (1234.5, "1,234"), (9.0, "9.00"), (176, "176")],
)
def test_a_figure_has_three_digits(value: float, text: str) -> None:
    assert tables.figure(value) == text


def test_the_page_tells_machine_command_date_load_and_versions(tmp_path: Path) -> None:
    write(tmp_path)
    page = tables.page(tmp_path)
    for said in ("A Processor", "avx2", "make bench-serving", "2026-11-22 10:00", "0.10 before and 1.90 after",
                 "python 3.11.7", "0123456789ab"):  # fmt: skip
        assert said in page
    assert "Not measured yet: `make bench-training` does." in page


def test_headlines_are_the_rows_that_a_table_quotes(tmp_path: Path) -> None:
    write(tmp_path)
    assert tables.headlines(tmp_path).splitlines() == [
        "- `make bench-serving`, 2026-11-22 10:00, 2 cores of A Processor:",
        "  - Speed: new: 60.0 requests/s; 5.00 times old; 75% of the model alone; agreement 99.5%",
    ]


def test_without_results_the_readme_says_how_to_get_them(tmp_path: Path) -> None:
    text = f"before\n{tables.BEGIN}\nold figures\n{tables.END}\nafter\n"
    assert "make bench" in tables.with_headlines(text, tmp_path)
    assert "old figures" not in tables.with_headlines(text, tmp_path)
    with pytest.raises(ValueError, match="benchmarks"):
        tables.with_headlines("no markers", tmp_path)


def test_the_page_is_what_the_results_say() -> None:
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "write it anew: python -m benchmarks.tables"


def test_the_readme_s_lines_are_what_the_results_say() -> None:
    readme = tables.README.read_text(encoding="utf-8")
    assert tables.with_headlines(readme) == readme, "write them anew: python -m benchmarks.tables"


def test_committed_results_are_small_readable_and_no_smoke_tests() -> None:
    for path in RESULTS.glob("*.json"):
        result = read(path)
        assert not result.quick, path.name
        assert path.stat().st_size < 100_000, path.name
        assert str(ROOT) not in path.read_text(encoding="utf-8"), f"{path.name} names a folder of the machine"


def test_every_script_is_there_and_has_a_row_in_the_page() -> None:
    from benchmarks.record import SCRIPTS

    for script in SCRIPTS:
        assert (ROOT / "benchmarks" / f"{script}.py").is_file()
    assert re.findall(r"^## (\w+)$", tables.page(), flags=re.MULTILINE) == list(SCRIPTS)
