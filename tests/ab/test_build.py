"""The page and its key: blind, self-contained, the same again from one seed, and never half-written."""

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lavibridge.ab.build import build_ab_study
from lavibridge.ab.data_uri import data_uri
from lavibridge.ab.key import QUESTIONS, read_ab_key
from lavibridge.ab.page import render_ab_page
from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError, RunError
from lavibridge.evaluation.records import read_records

Runs = tuple[Path, ...]


def shown_in(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    (text,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', page, flags=re.S)
    found: dict[str, Any] = json.loads(text)
    return found


def opened(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_key_tells_whose_each_picture_is_and_the_page_does_not(runs: Runs, tmp_path: Path) -> None:
    page, key_path = build_ab_study(runs, "world", tmp_path / "ab.html", prompts=12, repeats=2)
    text, key = page.read_text(encoding="utf-8"), read_ab_key(key_path)
    assert key_path == tmp_path / "ab.key.json"
    for run in runs:
        assert run.name not in text
        assert str(run.parent) not in text
    assert "repeat_of" not in text
    study = shown_in(text)
    assert study["study"] == key.study
    items = {item.item: item for item in key.items}
    records = [read_records(run / "evaluation" / "world") for run in runs]
    shown = [each for part in study["parts"] for each in part]
    assert {each["item"] for each in shown} == set(items)
    for each in shown:
        item = items[each["item"]]
        assert each["prompt"] == item.prompt
        for side, run in (("first", item.first), ("second", item.second)):
            record = records[run][item.category, item.prompt, item.seed]
            original = Image.open(runs[run] / "evaluation" / "world" / record.file)
            assert original.info["prompt"] == item.prompt
            picture = opened(study["pictures"][each[side]])
            assert not {"prompt", "seed", "exif", "icc_profile", "xmp"} & set(picture.info)
            assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(original.convert("RGB")))


def test_the_page_allows_itself_nothing_but_what_it_holds(runs: Runs, tmp_path: Path) -> None:
    text = build_ab_study(runs[:2], "world", tmp_path / "ab.html", prompts=4)[0].read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    allowed = dict(each.strip().split(" ", 1) for each in policy.replace("&#39;", "'").split(";"))
    assert allowed["default-src"] == "'none'"
    for name, found in (("style", r"<style>(.*?)</style>"), ("script", r"<script>(.*?)</script>")):
        (content,) = re.findall(found, text, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert allowed[f"{name}-src"] == f"'sha256-{digest}'"
    assert not re.findall(r'(?:src|href|action)="(?!data:)', text)
    assert "http://" not in text
    assert "https://" not in text
    assert " style=" not in text


def test_one_seed_makes_one_page_and_no_seed_another_each_time(runs: Runs, tmp_path: Path) -> None:
    made = [
        build_ab_study(runs, "world", tmp_path / f"{n}.html", prompts=6, seed=seed)
        for n, seed in enumerate((5, 5, 6))
    ]
    made += [build_ab_study(runs, "world", tmp_path / f"{n}.html", prompts=6) for n in (3, 4)]
    pages = [page.read_bytes() for page, _ in made]
    assert pages[0] == pages[1]
    assert made[0][1].read_bytes() == made[1][1].read_bytes()
    assert len(set(pages)) == 4
    assert len({read_ab_key(key).study for _, key in made}) == 4


def test_prompts_stay_text() -> None:
    prompt = "</script><script>alert(1)</script> <!-- \u2028 “ö” 🦊\n" + "x" * 10_000
    part = [{"item": "aa", "prompt": prompt, "first": 0, "second": 0}]
    study = {"study": "s", "questions": QUESTIONS, "sendTo": "<b>", "parts": [part], "pictures": ["data:,"]}
    text = render_ab_page(study)
    assert shown_in(text) == study
    assert "alert(1)</script>" not in text
    assert text.count("<script") == 2


def test_large_pictures_are_made_smaller_and_small_ones_keep_every_bit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 60, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(opened(data_uri(Image.fromarray(noise), 768)).convert("RGB")), noise)
    assert opened(data_uri(Image.new("RGB", (1024, 512)), 768)).size == (768, 384)


def test_what_cannot_be_compared_is_refused_and_nothing_is_written(
    runs: Runs, evaluated: Callable[..., Path], tmp_path: Path
) -> None:
    page = tmp_path / "out" / "ab.html"
    noise = evaluated(tmp_path / "other-noise", 0.5, 0, seed=3, limit=2)
    few = evaluated(tmp_path / "few", 0.5, 0, categories=("one",), limit=1)
    others = evaluated(tmp_path / "others", 0.5, 0, categories=("two",), limit=1)
    (tmp_path / "empty").mkdir()
    for chosen, suite, said in (
        (runs[:1], "world", "at least two runs"),
        ((runs[0], runs[0]), "world", "given twice"),
        ((runs[0], runs[0] / "evaluation" / "world"), "world", "given twice"),
        ((runs[0], tmp_path / "nothing"), "world", "there is no folder"),
        ((runs[0], tmp_path / "empty"), "world", "has no evaluation on the suite 'world'"),
        (runs, "parti", r"no evaluation on the suite 'parti' \(found world: choose with --suite\)"),
        ((runs[0], noise), "world", "seed is 0 in the first and 3"),
        ((few, others), "world", "share no prompt and seed"),
    ):
        with pytest.raises(LaviError, match=said):
            build_ab_study(chosen, suite, page)
    assert not page.parent.exists()


def test_a_missing_or_damaged_picture_is_named(runs: Runs, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[1], copy)
    page = tmp_path / "out" / "ab.html"
    pictures = sorted(copy.rglob("*.png"))
    pictures[3].write_bytes(pictures[3].read_bytes()[:80])
    with pytest.raises(RunError, match=rf"{pictures[3].name}: it cannot be decoded.*lavi evaluate"):
        build_ab_study((runs[0], copy), "world", page)
    pictures[3].unlink()
    with pytest.raises(RunError, match=rf"{pictures[3].name}: there is no such file"):
        build_ab_study((runs[0], copy), "world", page)
    assert not page.parent.exists()


def test_a_study_that_is_there_is_never_written_over(runs: Runs, tmp_path: Path) -> None:
    page, key = build_ab_study(runs[:2], "world", tmp_path / "ab.html", prompts=2)
    for path, other in ((page, key), (key, page)):
        other.rename(tmp_path / "aside")
        with pytest.raises(RunError, match=f"{path.name} exists, and"):
            build_ab_study(runs[:2], "world", page)
        (tmp_path / "aside").rename(other)


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs[1], tmp_path / runs[0].name)
    _, key = build_ab_study((runs[0], tmp_path / runs[0].name), "world", tmp_path / "ab.html", prompts=2)
    names = [run.name for run in read_ab_key(key).runs]
    assert len(set(names)) == 2
    assert all(runs[0].name in name for name in names)


def test_the_command_prints_both_paths(runs: Runs, tmp_path: Path) -> None:
    page = tmp_path / "ab.html"
    done = CliRunner().invoke(app, ["ab", "build", *map(str, runs), "--out", str(page), "--prompts", "3"])
    assert done.stdout.split() == [str(page), str(page.with_suffix(".key.json"))]
    assert "send it" in CliRunner().invoke(app, ["ab", "build", "--help"]).stdout
