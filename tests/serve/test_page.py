"""The page in a real browser, as a person meets it; screenshots go to $LAVI_SCREENSHOTS where that is set."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from toy_pivot import make_pivot

from lavibridge import BridgePipeline
from lavibridge.serve.engine.pivot_pairs import PivotPairs
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.server import make_app_state

Serve = Callable[..., AbstractContextManager[Any]]
TOKEN = "a-token-of-some-length"
PATIENCE = 60_000
"""Milliseconds that a busy machine is given."""


@pytest.fixture(scope="module")
def served(
    models: dict[str, ServedModel], running: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A toy bridge and the miniature Stable Diffusion, behind a token, and a runs folder with a run."""
    root = tmp_path_factory.mktemp("runs")
    (root / "trained").mkdir()
    (root / "trained" / "recipe.yaml").write_text("training: {steps: 9}\nlanguage: {source: mini-llama}\n")
    rows = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 9)]
    (root / "trained" / "log.jsonl").write_text("\n".join(rows))
    shown = {
        "toy": models["first"],
        "mini-sd": ServedModel("mini-sd", BridgePipeline.native("mini-sd", device="cpu").bridge, 4),
    }
    for name, model in shown.items():
        model.name = name
    with running(make_app_state(shown, Limits(steps=1000), root, False), TOKEN) as found:
        yield found
    models["first"].name = "first"


@pytest.fixture
def page(browser: Browser, served: Any) -> Iterator[Page]:
    """The page in a fresh profile; anything that it logs as an error fails the test."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.goto(f"{served.url}/#token={TOKEN}")
    expect(page.locator("#bridges label")).to_have_count(2, timeout=PATIENCE)
    yield page
    context.close()
    assert not errors


def shoot(page: Page, name: str) -> None:
    folder = os.environ.get("LAVI_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        page.fill(f"#{name}", value)


def check_accessible(page: Page) -> None:
    """No finding of axe that is serious or worse."""
    found = Axe().run(page).response["violations"]
    assert not [(each["id"], each["help"]) for each in found if each["impact"] in ("serious", "critical")]


def test_two_bridges_are_compared_and_the_history_survives_a_reload(page: Page, tmp_path: Path) -> None:
    assert "token" not in page.url
    fill(page, prompt="a red circle", seed="3", count="1", steps="4", guidance="4")
    expect(page.locator("#tokens")).to_contain_text("of 64 tokens", timeout=PATIENCE)
    page.select_option("#quality", "fast")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done: 2 pictures from seed 3", timeout=PATIENCE)
    expect(page.locator(".side img:visible")).to_have_count(2)
    expect(page.locator(".side:has-text('mini-sd')")).to_contain_text("promised")
    shoot(page, "drawn")
    check_accessible(page)
    page.reload()
    expect(page.locator("#history li")).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#prompt")).to_have_value("a red circle")

    page.locator("#history button[title='a red circle']:has(img[alt*='mini-sd'])").click()
    expect(page.locator("#verdict")).to_contain_text("color")
    with page.expect_download() as download:
        page.click("#download")
    file = tmp_path / "picture.png"
    download.value.save_as(file)
    page.click("#why")
    expect(page.locator("#words button")).to_have_count(4, timeout=PATIENCE)
    page.click("#words button:has-text('circle')")
    expect(page.locator("#heat")).to_be_visible()
    shoot(page, "why")
    check_accessible(page)
    page.keyboard.press("Escape")
    expect(page.locator("#picture")).to_be_hidden()

    fill(page, prompt="something else", seed="9")
    page.select_option("#quality", "exact")
    page.set_input_files("#file", file)
    expect(page.locator("#prompt")).to_have_value("a red circle")
    expect(page.locator("#seed")).to_have_value("3")
    expect(page.locator("#quality")).to_have_value("fast")
    expect(page.locator("[value=toy]")).not_to_be_checked()
    expect(page.locator("[value=mini-sd]")).to_be_checked()


@pytest.mark.parametrize("width", [1100, 360])
def test_the_same_seed_stands_in_the_same_row(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    fill(page, prompt="a red circle", seed="3", count="3", steps="1", size="16x16")
    page.click("#go")
    expect(page.locator("#status")).to_contain_text("Done", timeout=PATIENCE)
    sides = [side.locator(".cell").all() for side in page.locator(".side").all()]
    rows = [[cell.bounding_box()["y"] for cell in side] for side in sides]  # type: ignore[index]
    heights = {cell.bounding_box()["height"] for side in sides for cell in side}  # type: ignore[index]
    assert rows[0] == rows[1]
    assert rows[0] == sorted(set(rows[0]))
    assert width == 1100 or len(heights) > 1, "no caption wraps: nothing was tried"
    shoot(page, f"rows-{width}")


def test_a_long_drawing_shows_progress_and_is_cancelled(page: Page, served: Any, eventually: Any) -> None:
    page.click("summary:has-text('More')")
    fill(page, prompt="a blue star", count="1", steps="1000", size="16x16")
    page.uncheck("[value=mini-sd]")
    page.click("#go")
    expect(page.locator("#status")).to_contain_text("Drawing", timeout=PATIENCE)
    page.click("#cancel")
    expect(page.locator("#status")).to_have_text("Cancelled.", timeout=PATIENCE)
    eventually(lambda: served.app_state.queue.counts() == (0, 0))
    expect(page.locator("#go")).to_be_enabled()


def test_what_is_wrong_is_said(page: Page, tmp_path: Path) -> None:
    for box in page.locator("[name=bridge]").all():
        box.uncheck()
    fill(page, prompt="a red circle")
    page.click("#go")
    expect(page.locator("#status")).to_have_text("Tick at least one bridge.")
    (tmp_path / "text.png").write_text("no picture")
    page.set_input_files("#file", tmp_path / "text.png")
    expect(page.locator("#status")).to_have_text("This is no PNG.")


def test_runs_are_shown_with_their_curve(page: Page) -> None:
    page.click("#to-runs")
    expect(page.locator(".run")).to_contain_text("step 8 of 9", timeout=PATIENCE)
    expect(page.locator(".run svg")).to_be_visible(timeout=PATIENCE)
    shoot(page, "runs")
    check_accessible(page)


def test_on_a_phone_in_the_dark_by_keyboard(browser: Browser, served: Any) -> None:
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, device_scale_factor=2, color_scheme="dark"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(served.url)
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#bridges label")).to_have_count(2, timeout=PATIENCE)
    page.focus("#prompt")
    page.keyboard.type("a red circle")
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.name") == "bridge"
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    shoot(page, "phone")
    check_accessible(page)
    context.close()


def test_language_model_and_image_model_are_chosen_separately(
    browser: Browser, running: Serve, tmp_path: Path
) -> None:
    pairs = PivotPairs(make_pivot(tmp_path / "pivot", "first").folder, "cpu", 2)
    with running(make_app_state({}, Limits(), tmp_path, False, pairs)) as served:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(served.url)
        expect(page.locator("#language")).to_have_value("llama", timeout=PATIENCE)
        expect(page.locator("#bridges")).to_be_hidden()
        page.select_option("#language", "bert")
        page.select_option("#vision", "sd3")
        fill(page, prompt="a red circle", seed="3", count="1", steps="1", size="32x32")
        page.click("#go")
        expect(page.locator("#status")).to_contain_text("Done: 1 pictures", timeout=PATIENCE)
        expect(page.locator(".side h3")).to_have_text("bert+sd3")
        shoot(page, "pair")
        check_accessible(page)
        page.reload()
        expect(page.locator("#language")).to_have_value("bert", timeout=PATIENCE)
        expect(page.locator("[name=bridge]")).to_have_value("bert+sd3")
        page.select_option("#language", "llama")
        page.locator("#history button").click()
        page.click("#restore")
        expect(page.locator("#language")).to_have_value("bert")
        page.close()
