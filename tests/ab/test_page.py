"""A study in a real browser, by keyboard on a phone; screenshots go to $LAVI_SCREENSHOTS where it is set."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from lavibridge.ab.build import build_ab_study
from lavibridge.ab.key import AbKey, read_ab_key
from lavibridge.ab.score import score_ab_votes
from lavibridge.ab.votes import read_votes

PATIENCE = 60_000
"""Milliseconds that a busy machine is given."""
COMPARISONS = 10
"""Eight and two repeats."""


@pytest.fixture(scope="module")
def study(runs: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AbKey]:
    """A page of the best run and the worst."""
    out = tmp_path_factory.mktemp("page") / "ab.html"
    page, key = build_ab_study(
        (runs[0], runs[2]), "world", out, prompts=8, repeats=2, send_to="study@example.org"
    )
    return page, read_ab_key(key)


@pytest.fixture
def page(browser: Browser, study: tuple[Path, AbKey]) -> Iterator[Page]:
    """The page on a phone in the dark; anything that it logs or asks the network for fails the test."""
    context = browser.new_context(
        viewport={"width": 360, "height": 740},
        device_scale_factor=2,
        color_scheme="dark",
        accept_downloads=True,
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(study[0].as_uri())
    yield page
    context.close()
    assert not wrong


def check(page: Page, name: str) -> None:
    """Nothing hangs over the edge, and no finding of axe is serious or worse."""
    folder = os.environ.get("LAVI_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"ab-{name}.png")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    found = Axe().run(page).response["violations"]
    assert not [(each["id"], each["help"]) for each in found if each["impact"] in ("serious", "critical")]


def begin(page: Page, rater: str) -> None:
    page.keyboard.press("Tab")
    page.keyboard.type(rater)
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text(f"Pair 1 of {COMPARISONS}")


def saved(page: Page, button: str, path: Path) -> Path:
    with page.expect_download() as download:
        page.click(button)
    assert download.value.suggested_filename.startswith("votes-")
    download.value.save_as(path)
    return path


def answer(page: Page, key: AbKey) -> None:
    """Vote as somebody who knows: for the first run's picture, and no difference in looks."""
    items = {item.item: item for item in key.items}
    for place in range(COMPARISONS):
        expect(page.locator("#count")).to_have_text(f"Pair {place + 1} of {COMPARISONS}")
        expect(page.locator("#question")).to_have_text("1/2 Which picture follows the description better?")
        shown, mirrored = page.evaluate("() => [order[Math.floor(state.at / 2)], isMirrored]")
        item = items[shown["item"]]
        assert page.inner_text("#prompt") == item.prompt
        stands_left = (item.first == 0) != mirrored
        page.keyboard.press(("ArrowLeft", "1")[place % 2] if stands_left else ("ArrowRight", "3")[place % 2])
        expect(page.locator("#question")).to_contain_text("2/2 Which picture looks better")
        page.keyboard.press(("ArrowDown", "2")[place % 2])
    expect(page.locator("#end")).to_be_visible()


def test_a_study_is_voted_by_keyboard_on_a_phone_and_scored(
    page: Page, study: tuple[Path, AbKey], tmp_path: Path
) -> None:
    key = study[1]
    check(page, "start")
    begin(page, "Zoë O'Neill")
    check(page, "voting")
    answer(page, key)
    check(page, "end")
    expect(page.locator("#summary")).to_contain_text("20 answers")
    expect(page.locator("#summary")).to_contain_text("study@example.org")
    read = read_votes(key, [saved(page, "#download", tmp_path / "v.jsonl")])
    expect(page.locator("#saved")).to_contain_text("Zoë-O-Neill.jsonl")
    assert (len(read.votes), read.rejected) == (2 * COMPARISONS, ())
    assert {cast.rater for cast in read.votes} == {"Zoë O'Neill"}
    assert all(cast.vote.ms is not None and cast.vote.ms < PATIENCE for cast in read.votes)
    found = score_ab_votes(key, read)
    follows, looks = (found["questions"][name]["pairs"][0] for name in ("follows", "looks"))
    assert (follows["wins"], follows["ties"], follows["losses"]) == (8, 0, 0)
    assert (looks["wins"], looks["ties"], looks["losses"]) == (0, 8, 0)
    assert found["retest"]["mean"] == 1
    assert found["retest"]["n"] == 4

    seen = page.evaluate("() => [state.session, order.map((each) => each.item)]")
    page.click("#another")
    expect(page.locator("#start")).to_be_visible()
    page.keyboard.type("ben")
    page.keyboard.press("Enter")
    expect(page.locator("#count")).to_have_text(f"Pair 1 of {COMPARISONS}")
    now = page.evaluate("() => [state.session, order.map((each) => each.item)]")
    assert now[0] != seen[0], "the next person is another, with another order"
    assert sorted(now[1]) == sorted(seen[1])
    assert page.evaluate("() => Object.keys(state.votes).length") == 0


def test_votes_survive_a_reload_and_can_be_changed(
    page: Page, study: tuple[Path, AbKey], tmp_path: Path
) -> None:
    begin(page, "ben")
    page.keyboard.press("1")
    expect(page.locator("#question")).to_contain_text("2/2")
    page.reload()
    expect(page.locator("#question")).to_contain_text("2/2")
    page.keyboard.press("Backspace")
    expect(page.locator("#question")).to_contain_text("1/2")
    expect(page.locator("#left")).to_have_attribute("aria-pressed", "true")
    page.click("#see-left")
    expect(page.locator("#large")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#large-picture")).to_have_attribute("alt", "The right picture")
    check(page, "large")
    page.keyboard.press("Escape")
    page.uncheck("#keys")
    page.keyboard.press("3")
    expect(page.locator("#question")).to_contain_text("1/2")
    page.click("#right")
    expect(page.locator("#question")).to_contain_text("2/2")
    lines = saved(page, "#download-early", tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    (vote,) = (json.loads(line) for line in lines)
    right = {"first": "second", "second": "first"}[vote["left"]]
    assert (vote["question"], vote["choice"]) == ("follows", right)
    assert len(read_votes(study[1], [tmp_path / "v.jsonl"]).votes) == 1
