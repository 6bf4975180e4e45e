"""A report of really trained and evaluated toy runs: complete, self-contained, the same every time."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from lavibridge.report.formatting import format_fact
from lavibridge.report.page import render_report, write_report
from lavibridge.report.report_contents import MAX_SHOWN_PREVIEWS

VOID = {"meta", "img", "link", "br", "hr", "input"}
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
Runs = tuple[Path, Path]


class Page(HTMLParser):
    """Tags of a page in order, whether each is closed, and the text of what points into report.json."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.shown: list[tuple[str, list[str]]] = []
        self.loose: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            at = dict(attributes).get("data-at")
            if at is not None:
                self.shown.append((at, []))
            self.open.append((tag, at))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        places = [at for _, at in self.open if at is not None]
        if places:
            next(each for each in reversed(self.shown) if each[0] == places[-1])[1].append(data)
        elif any(tag == "td" for tag, _ in self.open):
            self.loose.append(data)


@pytest.fixture(scope="module")
def both(evaluated: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of both runs."""
    return write_report(evaluated, tmp_path_factory.mktemp("report") / "both.html")


@pytest.fixture(scope="module")
def text(both: Path) -> str:
    return both.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def told(both: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(both.with_suffix(".json").read_text(encoding="utf-8"))
    return found


def test_the_page_says_what_was_trained_and_measured(text: str) -> None:
    for said in (
        "<h1>first and second</h1>",
        "Loss by diffusion time",
        "Held-out loss by diffusion time",
        "Gradient norm",
        "images/s",
        "language LoRA",
        "first minus second: world, suite world",
        "Side by side",
        "Worst of first: world",
        "Best of second: clip_score",
        "the model&#39;s own",
        "mini-clip",
        "Model card of second",
    ):
        assert said in text, said
    assert re.search(r"0\.0 % \(0\.0 to 39\.0\), n&nbsp;6", text)
    assert re.search(r"✗ objects: expected \d, ", text)
    assert "FILL IN: see its own model card" in text, "a licence is never guessed"


def test_every_number_of_a_table_is_that_of_the_json(text: str, told: dict[str, Any]) -> None:
    page = Page(text)
    assert not [
        each for each in page.loose if re.search(r"\d", each) and not each.startswith(("first", "sec"))
    ]
    assert len(page.shown) > 100
    for pointer, pieces in page.shown:
        check(pointer, " ".join(pieces).strip(), told)


def test_the_page_is_made_of_the_json_and_the_pictures_alone(
    evaluated: Runs, copied: Callable[[Path], Path], tmp_path: Path
) -> None:
    folders = [copied(folder) for folder in evaluated]
    for folder in folders:
        (folder / "log.jsonl").unlink()  # charts take time: that they are always the same is tested elsewhere
    page = write_report(folders, tmp_path / "report.html")
    told = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert render_report(told, folders) == page.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_else(text: str) -> None:
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.found:
        for name in ("src", "href", "srcset", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (
                f"{tag} asks for another file"
            )
        assert tag not in {"script", "link", "iframe"}
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "@import" not in text


def test_the_page_can_be_read_without_eyes_on_a_phone_in_the_dark_and_on_paper(text: str) -> None:
    page = Page(text)
    tags = [tag for tag, _ in page.found]
    assert [each for each in tags if each == "h1"] == ["h1"]
    assert "main" in tags
    for tag, attributes in page.found:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in {"row", "col"}
    assert dict(page.found)["html"]["lang"] == "en"
    for needed in ("width=device-width", "prefers-color-scheme: dark", "@media print", "<caption>"):
        assert needed in text
    ids = [str(attributes["id"]) for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [str(attributes["href"]) for tag, attributes in page.found if tag == "a"]
    assert {each.removeprefix("#") for each in links} <= set(ids)


def test_prompts_become_the_pictures_alternative_text_and_stay_text(text: str) -> None:
    assert "<blue>" not in text
    assert "&lt;blue&gt;" in text
    assert 'alt="Drawn by second for: ' in text


def test_a_run_that_was_only_begun_has_a_page_too(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    shutil.copy(run / "recipe.yaml", folder / "recipe.yaml")
    text = write_report([folder], folder / "report.html").read_text(encoding="utf-8")
    assert Page(text).open == []
    assert "begun is not started: no logged step" in text
    assert "Not evaluated." in text


def test_many_samples_are_thinned_and_the_rest_is_counted(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").unlink()  # charts take time, and are none of this
    picture = tmp_path / "run" / "samples" / "step-0.png"
    for step in range(10, 10 + 2 * MAX_SHOWN_PREVIEWS):
        shutil.copy(picture, picture.with_name(f"step-{step}.png"))
    text = write_report([tmp_path / "run"], tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<img") == MAX_SHOWN_PREVIEWS
    assert f">{2 * MAX_SHOWN_PREVIEWS + 3}</span> previews" in text
    assert f"step {9 + 2 * MAX_SHOWN_PREVIEWS}</figcaption>" in text


def check(pointer: str, said: str, told: dict[str, Any]) -> None:
    """Every number that is said is there where the pointer points, rounded as it is shown."""
    value = resolve(told, pointer)
    if "/facts/" in pointer:
        unit = resolve(told, pointer.removesuffix("/value"))["unit"]
        assert said == format_fact(value, unit)
        return
    if isinstance(value, str):
        assert not value or said in value
        return
    known = list(leaves(value))
    for token in NUMBER.findall(said):
        digits = token.replace(",", "")
        mantissa, _, exponent = digits.partition("e")
        half = 0.5001 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        shown = float(digits)
        assert any(abs(shown - scale * each) <= half for each in known for scale in (1.0, 100.0)), (
            f"{pointer}: {token} in '{said}' is not in {value}"
        )


def resolve(value: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def leaves(value: Any) -> Any:
    """All numbers of a value, those in its strings included."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, str):
        yield from (float(each.replace(",", "")) for each in NUMBER.findall(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
