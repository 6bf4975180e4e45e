"""The gallery: captions, scenes and drawings, each judged, in a page that needs no other file."""

import re
from pathlib import Path

from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.world.captions import evaluation_prompts


def test_scenes_are_right_and_every_drawing_is_judged(tmp_path: Path) -> None:
    page = tmp_path / "gallery.html"
    chosen = ["--category", "one", "--category", "counting", "--guidance", "3"]
    result = CliRunner().invoke(app, ["world", "gallery", "mini-sd", *chosen, "-n", "2", "-o", str(page)])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert "guidance 3" in text
    for category in ("one", "counting"):
        for pair in evaluation_prompts(category, 2):
            assert pair.caption in text
    assert text.count("the scene 2 of 2") == 2, "a drawn scene keeps its caption"
    assert len(re.findall(r'<figure class="(?:right|wrong)">', text)) == 8
    assert text.count("<summary>why</summary>") == text.count('<figure class="wrong">')
    assert not re.findall(r'(?:src|href)="(?!data:)', text), "nothing is fetched"


def test_an_unknown_category_is_named(tmp_path: Path) -> None:
    page = tmp_path / "gallery.html"
    result = CliRunner().invoke(app, ["world", "gallery", "--category", "won", "-o", str(page)])
    assert "unknown category 'won'" in str(result.exception)
    assert not page.exists()
