"""The graph and the report in a real browser, without a network: nothing is fetched, complains or spills."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import report_account
from report_account import DEFINITION, FAILURE, FakeAccount, evaluation, evidence

from workflow import definition, executions
from workflow.config import Config
from workflow.graph import Graph
from workflow.pages import drawing, report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PHONE, DESK = 390, 1280
LONG = "a_class_with_a_name_that_is_much_longer_than_any_phone_is_wide_and_has_no_space_in_it"

pytestmark = [pytest.mark.browser, pytest.mark.enable_socket]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by what they show, with names as long as users make them."""
    folder = tmp_path_factory.mktemp("pages")
    graph = Graph.from_definition(DEFINITION)
    succeeded = FakeAccount(name=LONG, archive=evidence(**evaluation((LONG, "pug"))))
    failed = FakeAccount(steps=FAILURE, status="FAILED", cause=f"Train failed: {LONG}")
    (folder / "machine.html").write_text(drawing.to_html(Graph.from_definition(definition.build(Config()))))
    execution = executions.describe(failed.account(), report_account.ARN)
    (folder / "execution.html").write_text(drawing.to_html(graph, execution))
    report.write(succeeded.account(), report_account.ARN, folder / "report.html")
    report.write(failed.account(), report_account.ARN, folder / "failed.html")
    return {path.stem: path for path in folder.glob("*.html")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["machine", "execution", "report", "failed"])
def test_a_page_opens_offline(browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)  # type: ignore[arg-type]
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[name].as_uri())
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
    context.close()


def test_the_main_line_is_in_sight_on_a_phone(browser: Browser, pages: dict[str, Path]) -> None:
    context = browser.new_context(viewport={"width": PHONE, "height": 844}, offline=True)
    page = context.new_page()
    page.goto(pages["machine"].as_uri())
    box = page.locator("figure.graph").first.locator(".state", has_text="ResolveInput").first.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE
    context.close()


def test_the_report_prints_light_and_without_cutting_off(browser: Browser, pages: dict[str, Path]) -> None:
    context = browser.new_context(viewport={"width": 718, "height": 1000}, color_scheme="dark", offline=True)
    page = context.new_page()
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(pages["report"].as_uri())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.locator("nav").is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")
    context.close()
