"""What a study writes is what its cells scored: by hand, in every form, and in a page that stands alone."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, mean

import pytest
from PIL import Image
from typer.testing import Result

from lavibridge.core.config import validate_config
from lavibridge.core.errors import RunError
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.records import Record
from lavibridge.study.scores import CellScores
from lavibridge.study.study import Study
from lavibridge.study.table import make_study_table

Lavi = Callable[..., Result]
CONDITIONS = ("llama", "bert")
VOID = {"meta", "img", "br", "line", "circle"}


def set_scores(out: Path, condition: str, seed: int, right: list[int]) -> None:
    """Write other verdicts into a cell's records: of the two prompts `one`, then of the clause colour."""
    path = out / condition / f"seed-{seed}/evaluation/world/records.jsonl"
    records = sorted(
        (json.loads(line) for line in path.read_text().splitlines()), key=lambda each: each["file"]
    )
    for record, value in zip(records, right, strict=True):
        record["scores"]["world"] = float(value)
        record["clauses"]["world"]["color"] = float(value)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def scored(made: Path, toy: Path, lavi: Lavi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy study with verdicts that were made up, so that its table can be computed by hand."""
    out = Path(shutil.copytree(made, tmp_path_factory.mktemp("tables") / "out"))
    for condition, seed, right in (
        ("llama", 0, [0, 0, 1, 0]),
        ("llama", 1, [0, 1, 1, 1]),
        ("bert", 0, [1, 0, 1, 1]),
        ("bert", 1, [1, 1, 1, 1]),
    ):
        set_scores(out, condition, seed, right)
    lavi(toy, "--table", "--out", out)
    return out


def test_the_table_is_what_is_computed_by_hand(scored: Path) -> None:
    found = json.loads((scored / "table.json").read_text())
    one, colour = found["rows"]
    assert (one["unit"], colour["unit"]) == ("share", "share")
    means = [[row["entries"][name]["value"]["mean"] for name in CONDITIONS] for row in (one, colour)]
    assert means == [[fmean([0, 0, 0, 1]), fmean([1, 0, 1, 1])], [fmean([1, 0, 1, 1]), 1.0]]
    change = one["entries"]["bert"]["difference"]
    assert change["mean"] == fmean([1, 0, 1, 0])
    assert (change["seeds"], change["prompts"], change["unscored"]) == (2, 2, 0)
    assert one["entries"]["llama"]["difference"] is None, "the baseline is not compared with itself"
    # Both seeds have the same differences, so only prompts vary: the draws are of one prompt of two.
    assert (change["low"], change["high"]) == (0, 1)
    assert change["p"] == pytest.approx(1, abs=0.05)
    p = [row["entries"]["bert"]["difference"]["p"] for row in (one, colour)]
    first, second = sorted(p)
    holm = {first: min(1, 2 * first), second: max(min(1, 2 * first), second)}
    assert [row["entries"]["bert"]["p_holm"] for row in (one, colour)] == [holm[each] for each in p]
    (claim,) = found["claims"]
    assert claim["verdicts"][0]["verdict"] == "cannot tell"
    assert found["ceilings"]["bert"]["read"]["color"]["words"] == 16


def test_markdown_and_csv_say_the_same(scored: Path) -> None:
    text = (scored / "table.md").read_text()
    assert "| One thing | 25.0 % (0.0 to 100.0) | **75.0 % (0.0 to 100.0)** | 2 x 2 seeds |" in text
    assert "| Colour | 75.0 %" in text
    assert "- Short-FID: four pictures" in text
    rows = list(csv.DictReader((scored / "table.csv").read_text().splitlines()))
    assert [(row["condition"], row["row"], float(row["mean"])) for row in rows] == [
        ("llama", "One thing", 0.25),
        ("bert", "One thing", 0.75),
        ("llama", "Colour", 0.75),
        ("bert", "Colour", 1.0),
    ]
    assert rows[0]["difference"] == ""
    assert float(rows[1]["difference"]) == 0.5


def of_sets(figures: list[float], scores: list[list[float]]) -> dict[str, CellScores]:
    """What a cell says that has one set measure, and one score for each prompt."""
    tasks = [Task(category="c", prompt=str(n), seed=0, file=f"{n}.png") for n in range(len(scores))]
    records = [
        Record(category="c", prompt=task.prompt, seed=0, file=task.file, scores={"error": mean(each)})
        for task, each in zip(tasks, scores, strict=True)
    ]
    totals = {"fid": {"n": len(tasks), "mean": figures[0], "low": figures[1], "high": figures[2]}}
    metrics = {"fid": {"unit": "", "totals": totals}, "error": {"unit": "", "all": {}}}
    return {
        "s": CellScores(results={"metrics": metrics}, records={r.key: r for r in records}, tasks=tuple(tasks))
    }


def test_measures_of_sets_have_students_interval_and_lower_may_be_better() -> None:
    rows = [
        {"name": "FID", "suite": "s", "metric": "fid", "better": "lower"},
        {"name": "Error", "suite": "s", "metric": "error", "better": "lower"},
    ]
    claims = [
        {"says": "new is better", "better": "new", "than": "old", "rows": ["Error", "FID"]},
        {"says": "old is better", "better": "old", "than": "new", "rows": ["Error"]},
    ]
    asked = validate_config(
        Study,
        {
            "name": "s",
            "question": "?",
            "recipe": "quickstart",
            "conditions": [{"name": "old"}, {"name": "new"}],
            "suites": {"s": {"suite": "world"}},
            "rows": rows,
            "claims": claims,
        },
        "",
    )
    prompts = [[0.1 * n] for n in range(12)]
    finished = {
        (name, seed): of_sets([seed + 1.0, 0.5, 4.0], [[score + shift] for (score,) in prompts])
        for name, shift in (("old", 0.3), ("new", 0.0))
        for seed in (0, 1, 2)
    }
    table = make_study_table(asked, finished)
    found = table.rows[0].entries["old"].value
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.high - found.mean == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    change = table.rows[0].entries["new"].difference
    assert change is not None
    assert (change.mean, change.low, change.high, change.seeds) == (0, 0, 0, 3), "paired by seed"
    assert [line.best() for line in table.rows] == [None, "new"]
    said = [[(each.row, each.verdict) for each in verdicts] for verdicts in table.verdicts]
    assert said == [[("FID", "cannot tell"), ("Error", "confirmed")], [("Error", "contradicted")]]


class Page(HTMLParser):
    """Tags of a page, each closed where it should be."""

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


def test_the_page_stands_alone_and_can_be_read_by_everybody(scored: Path, toy: Path, lavi: Lavi) -> None:
    text = (scored / "study.html").read_text()
    page = Page(text)
    assert page.open == []
    assert not re.search(r"""(?:src|href)="(?!data:|#)""", text)
    assert "BERT &lt;both ways&gt;" in text
    assert "BERT <both ways>" not in text
    pictures = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(pictures) == 4, "one prompt of each category, two conditions"
    assert all(each["alt"] for each in pictures)
    charts = [attributes for tag, attributes in page.found if tag == "svg"]
    assert [each["role"] for each in charts] == ["img", "img"]
    assert "One thing: llama 25.0 % (0.0 to 100.0); BERT" in str(charts[0]["aria-label"])
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    lavi(toy, "--table", "--out", scored)
    assert (scored / "study.html").read_text() == text, "the same results, the same bytes"


def test_the_sheet_shows_the_same_prompts_in_every_column(scored: Path) -> None:
    with Image.open(scored / "contact_sheet.png") as sheet:
        told = sheet.info["description"]
    assert "Columns: llama; BERT <both ways>." in told


def test_a_row_that_nobody_measured_and_lost_pictures_are_said(
    scored: Path, write_study: Callable[..., Path], lavi: Lavi, tmp_path: Path
) -> None:
    rows = [{"name": "Score", "suite": "world", "metric": "clip_score"}]
    with pytest.raises(RunError, match=r"row 'Score': the suite 'world' has no metric 'clip_score'"):
        lavi(write_study(tmp_path, rows=rows, claims=[]), "--table", "--out", scored)
    out = Path(shutil.copytree(scored, tmp_path / "out"))
    path = out / "bert/seed-1/evaluation/world/records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(RunError, match="lacks 1 of 4 images"):
        lavi(write_study(tmp_path), "--table", "--out", out)
