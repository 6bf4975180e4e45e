"""A report of really trained toy runs: complete, self-contained, the same every time, safe with any text."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from lavibridge.core.errors import LaviError, RunError
from lavibridge.report.page import SHOWN, render, write_report
from lavibridge.report.records import read_run
from lavibridge.report.scores import score_tables

VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags of a page in order, and whether each is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def category(mean: float, n: int) -> dict[str, Any]:
    clause = {"n": n, "mean": mean, "low": mean / 2, "high": (1 + mean) / 2}
    return {**clause, "clauses": {"color": clause}}


def of_world(categories: dict[str, Any]) -> dict[str, Any]:
    """Results of the world's checker, as `lavi evaluate` writes them."""
    world = {"unit": "share", "all": category(0.5, 300), "categories": categories}
    return {"suite": "world", "version": 1, "n": 300, "metrics": {"world": world}}


@pytest.fixture
def scored(run: Path, tmp_path: Path) -> Path:
    """The toy run with results as `lavi quickstart` writes them."""
    folder = tmp_path / "scored"
    shutil.copytree(run, folder)
    nothing = {"n": 0, "mean": None, "low": None, "high": None}
    results = {
        **of_world({"one": category(0.7125, 160), "two": nothing}),
        "compared": {"untrained bridge": of_world({"one": category(0.0, 160)})},
    }
    (folder / "results.json").write_text(json.dumps(results))
    cosine = {"n": 50, "mean": 0.31017, "low": 0.30761, "high": 0.31284}
    fid = {"n": 50, "mean": 21.804, "low": None, "high": None}
    metrics = {
        "clip_score": {"unit": "", "all": cosine, "categories": {"coco": {**cosine, "clauses": {}}}},
        "fid": {"unit": "", "totals": {"fid": fid}},
    }
    (folder / "evaluation" / "lavi-short").mkdir(parents=True)
    other = folder / "evaluation" / "lavi-short" / "results.json"
    other.write_text(json.dumps({"suite": "lavi-short", "version": 1, "n": 50, "metrics": metrics}))
    return folder


def test_the_page_says_what_was_trained_and_measured(scored: Path) -> None:
    page = write_report([scored], scored / "report.html")
    text = page.read_text(encoding="utf-8")
    for said in ("random", "6 of 6", "Loss by diffusion time", "Gradient norm", "images/s", "language LoRA"):
        assert said in text
    assert re.search(r"71\.2 % \(35\.6 to 85\.6\), n&nbsp;160", text)
    assert "0.3102 (0.3076 to 0.3128), n&nbsp;50" in text
    assert "21.8, n&nbsp;50" in text
    assert "untrained bridge" in text
    assert "not scored" in text


def test_the_page_is_whole_and_needs_nothing_else(scored: Path) -> None:
    page = Page(render([read_run(scored)]))
    assert page.open == []
    for tag, attributes in page.found:
        for name in ("src", "href", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), f"{tag} asks for another file"
        assert tag not in {"script", "link", "iframe"}
    text = render([read_run(scored)])
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "@import" not in text


def test_the_page_can_be_read_without_eyes_on_a_phone_in_the_dark_and_on_paper(scored: Path) -> None:
    text = render([read_run(scored)])
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
    assert dict(page.found)["html"]["lang"] == "en"
    for needed in (
        "width=device-width",
        "prefers-color-scheme: dark",
        "@media print",
        'scope="row"',
        "<caption>",
    ):
        assert needed in text
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_folders_give_the_same_page(scored: Path) -> None:
    assert render([read_run(scored)]) == render([read_run(scored)])


def test_prompts_become_the_pictures_alternative_text_and_stay_text(run: Path) -> None:
    text = render([read_run(run)])
    assert "<blue>" not in text
    assert "&lt;blue&gt;" in text


def test_two_runs_stand_side_by_side(run: Path, scored: Path, tmp_path: Path) -> None:
    text = write_report([run, scored], tmp_path / "both.html").read_text(encoding="utf-8")
    assert "toy-run and scored" in text
    assert Page(text).open == []
    tables = score_tables([read_run(scored), read_run(scored)])
    assert tables[0].columns == ("scored", "untrained bridge, scored")
    assert [table.title for table in tables if not table.is_detail] == [
        "world, suite world",
        "clip_score, suite lavi-short",
        "fid, suite lavi-short",
    ]


def test_a_run_that_was_only_begun_has_a_page_too(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "recipe.yaml", tmp_path / "recipe.yaml")
    assert Page(render([read_run(tmp_path)])).open == []


def test_many_samples_are_thinned_and_the_rest_is_counted(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    picture = tmp_path / "run" / "samples" / "step-0.png"
    for step in range(10, 10 + 2 * SHOWN):
        shutil.copy(picture, picture.with_name(f"step-{step}.png"))
    text = render([read_run(tmp_path / "run")])
    assert text.count("<img") == SHOWN
    assert f"{2 * SHOWN + 3 - SHOWN} more in the run folder" in text
    assert f"step {9 + 2 * SHOWN}</figcaption>" in text


def test_a_resumed_log_counts_each_step_once_and_a_cut_last_line_is_left_out(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    with open(tmp_path / "run" / "log.jsonl", "a") as log:
        log.write('{"step": 5, "loss": 0.125}\n{"step": 7, "lo')
    rows = read_run(tmp_path / "run").rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[4]["loss"] == 0.125


def test_errors_name_the_file(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run folder.*recipe\.yaml"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="is no folder"):
        read_run(tmp_path / "nothing")
    for name, content in (
        ("results.json", "{"),
        ("results.json", "[]"),
        ("log.jsonl", "{\n{}\n"),
        ("recipe.yaml", "a: ["),
    ):
        folder = tmp_path / f"{name}-{len(content)}"
        shutil.copytree(run, folder)
        (folder / name).write_text(content)
        with pytest.raises(LaviError, match=name.replace(".", r"\.")):
            read_run(folder)
    shutil.copytree(run, tmp_path / "picture")
    (tmp_path / "picture" / "samples" / "step-0.png").write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"step-0\.png"):
        render([read_run(tmp_path / "picture")])
