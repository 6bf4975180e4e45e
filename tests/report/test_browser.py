"""The page in a real browser: no serious finding of axe, nothing wider than the screen.

Screenshots go to $LAVI_SCREENSHOTS where that is set.
"""

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from lavibridge.report.page import write_report

PATIENCE = 120_000
"""Milliseconds that a busy machine is given."""


@pytest.fixture(scope="module")
def file(evaluated: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two runs."""
    return write_report(evaluated, tmp_path_factory.mktemp("report") / "report.html")


def test_the_page_is_accessible_and_fits(browser: Browser, file: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 850}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition(",")[0]))
    page.goto(file.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("() => [...document.images].every(each => each.naturalWidth > 0)")
    check(page, "report-desktop", {"resultTypes": ["violations"]})
    page.set_viewport_size({"width": 390, "height": 850})
    page.emulate_media(color_scheme="dark")
    check(page, "report-phone", {"runOnly": ["color-contrast", "scrollable-region-focusable"]})
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    context.close()


def check(page: Page, name: str, options: dict[str, Any]) -> None:
    """Nothing is wider than the screen, and axe finds nothing serious; only a few rules mind the screen."""
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    if "LAVI_SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["LAVI_SCREENSHOTS"]) / f"{name}.png", full_page=True)
    answer = Axe().run(page, options=options).response
    assert answer["passes"], "axe has looked"
    found = [each for each in answer["violations"] if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], each["help"]) for each in found]
