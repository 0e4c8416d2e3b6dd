"""The report of an execution: one page that needs nothing else, says what was not reached, and escapes everything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import report_account
from report_account import FAILURE, FakeAccount, evaluation, evidence, jpeg, training_job

from workflow.pages import report
from workflow.pages.charts import confusion_matrix, histogram, ticks

HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """What a page would run or fetch, and its sections' texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.alternatives: list[str | None] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attributes)
        self.fetched += [str(named[key]) for key in ("src", "srcset", "data", "poster", "xlink:href") if key in named]
        self.fetched += [str(named["href"])] if "href" in named else []
        self.handlers += [key for key in named if key.startswith("on")]
        if tag == "img":
            self.alternatives.append(named.get("alt"))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def rendered(account: FakeAccount | None = None) -> str:
    return report.render((account or FakeAccount()).account(), report_account.ARN)


def failed(**given: Any) -> FakeAccount:
    data = {"settings": report_account.SETTINGS, "clean_up": {"actions": ["nothing was there to undo"]}}
    return FakeAccount(steps=FAILURE, status="FAILED", data=data, job={}, log=(), **given)


def test_the_page_is_written_and_needs_nothing_else(tmp_path: Path) -> None:
    path = report.write(FakeAccount().account(), report_account.ARN, tmp_path / "new" / "report.html")
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert all(place.startswith(("data:image/jpeg;base64,", "#")) for place in page.fetched)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert len(html) < 1_500_000


def test_every_section_says_what_the_execution_measured() -> None:
    text = Page(rendered()).text
    for figure in ("75.0%", "50 s of 55 s billed on each of 2 hosts", "1 spot interruption", "1 of 2", "43 ms"):
        assert figure in text
    assert "unverified" in text
    assert "is corgi" in text  # the worst picture
    assert "torch 2.14.1" in text
    assert "s3://artifacts/assets/c0de/" in text
    assert "Resumed from a checkpoint at step 6." in text
    assert "Not reached" not in text


def test_every_picture_has_a_text_and_there_is_one_heading_of_the_page() -> None:
    page = Page(rendered())
    assert page.alternatives == ["corgi: test/corgi/a.jpg", "corgi: corgi/b.png"]
    assert page.tags.count("h1") == 1


def test_a_failed_execution_says_what_it_never_reached() -> None:
    account = failed(cause="Train failed: no pictures")
    # Nothing was created: the history names no training job.
    account.steps = (("Prepare", "Pass", 1, ""), ("SmokeTest", "Task", 3, "gone"), *FAILURE[2:])
    text = Page(rendered(account)).text
    assert "Train failed: no pictures" in text
    assert "nothing was there to undo" in text
    assert "Not reached: nothing was trained; it ended with FAILED after SmokeTest." in text
    assert "Not reached: no model was evaluated" in text


def test_a_running_execution_has_a_report_too() -> None:
    account = FakeAccount(steps=report_account.SUCCESS[:1], status="RUNNING", data={"settings": {}}, job={}, log=())
    assert "Not reached: nothing was trained; it still runs." in Page(rendered(account)).text


def test_what_users_wrote_is_shown_and_never_run() -> None:
    names = (HOSTILE, "pug")
    account = failed(cause=HOSTILE, name=HOSTILE)
    account.job = training_job()
    account.log = [HOSTILE]
    account.archive = evidence(**evaluation(names))
    account.data["settings"] = {HOSTILE: {HOSTILE: HOSTILE}}
    account.data["artifacts"] = {"evidence_s3_uri": f"s3://bucket/{HOSTILE}"}
    smoke = {"picture": HOSTILE, "label": HOSTILE, "predicted": "pug", "probability": 1, "latency_ms": 1}
    account.data["smoke"] = {"predictions": [smoke]}
    html = rendered(account)
    page = Page(html)
    assert "script" not in page.tags
    assert page.handlers == []
    assert page.text.count("<script>alert(1)</script>") >= 8
    assert "default-src 'none'" in html


def test_only_small_jpegs_of_the_archive_are_shown() -> None:
    hostile = {
        "worst/01.jpg": b"<svg onload=alert(1)>",
        "worst/02.jpg": jpeg() + bytes(report.MAX_PICTURE_BYTES),
        **{f"worst/{number}.jpg": jpeg() for number in range(10, 60)},
    }
    found = report.read_evidence(FakeAccount(archive=evidence(hostile)).account(), "s3://bucket/key")
    shown = [name for name in found.pictures if name.startswith("worst/")]
    assert "worst/01.jpg" not in shown
    assert "worst/02.jpg" not in shown
    assert len(shown) <= report.MAX_PICTURES


@pytest.mark.parametrize("archive", [b"", b"no archive", evidence()[:200]], ids=["empty", "no archive", "cut off"])
def test_a_damaged_archive_is_said(archive: bytes) -> None:
    html = rendered(FakeAccount(archive=archive))
    assert "is not an intact archive of evidence" in html


def test_an_archive_that_unpacks_to_too_much_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_EVIDENCE_BYTES", 10_000)
    found = report.read_evidence(FakeAccount(archive=evidence({"big": bytes(20_000)})).account(), "s3://bucket/key")
    assert "more than 10,000 bytes" in found.problem


def test_the_timeline_shows_the_phases_of_the_training_job_in_its_state() -> None:
    account = FakeAccount().account()
    execution = report.executions.describe(account, report_account.ARN)
    drawn = report.gantt(execution, training_job())
    rows = {row.name: row for row in drawn["rows"]}
    assert list(rows)[:6] == ["Prepare", "Train", "Downloading", "Training", "Interrupted", "Uploading"]
    assert rows["Training"].note == "2×"
    train, interrupted = rows["Train"].bars[0], rows["Interrupted"].bars[0]
    assert train.left <= interrupted.left < interrupted.left + interrupted.width <= train.left + train.width
    assert drawn["left_out"] == 2  # Good? and Done took no time


def test_the_state_that_failed_is_red_in_the_timeline_although_it_was_caught() -> None:
    execution = report.executions.describe(failed().account(), report_account.ARN)
    rows = {row.name: row for row in report.gantt(execution, {}, failed="Train")["rows"]}
    assert [bar.kind for bar in rows["Train"].bars] == ["failed"]


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 97, [0, 20, 40, 60, 80]), (3, 3, [3])],
)
def test_ticks_are_round(low: float, high: float, values: list[float]) -> None:
    assert ticks(low, high) == values


def test_a_histogram_counts_every_value_once() -> None:
    drawn = histogram("Latency", [12.0, 13.5, 88.0, 20.0], x_label="ms")
    counts = [int(count) for count in re.findall(r"<title>(\d+) from", drawn)]
    assert sum(counts) == 4
    assert counts[0] == 2


def test_a_confusion_matrix_colours_the_diagonal_otherwise_than_mistakes() -> None:
    drawn = confusion_matrix(["corgi", "pug"], [[1, 1], [0, 2]])
    assert re.findall(r'<td class="(\w+)"', drawn) == ["right", "wrong", "none", "right"]
    assert "1 of 2 corgi as pug" in drawn
