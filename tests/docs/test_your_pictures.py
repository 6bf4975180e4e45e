"""The guide from a folder of pictures to a run: its Python and its commands in their order, as printed."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.recipes.recipe import load_recipe, make_recipe

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "your-pictures.md"


def blocks(language: str) -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return [str(each) for each in re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)]


def draw_pictures() -> None:
    (code,) = blocks("python")
    exec(compile(code, GUIDE.name, "exec"), {})


def test_the_mixture_is_one_that_a_recipe_takes() -> None:
    (text,) = blocks("yaml")
    recipe = load_recipe("mini-llama_mini-sd_lavi").model_dump(mode="json")
    parts = make_recipe({**recipe, **yaml.safe_load(text)}).data.model_dump()["parts"]
    assert [part["weight"] for part in parts] == [0.6, 0.4]


def test_the_pictures_are_drawn_and_pass_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_pictures()
    for block in blocks("bash")[:2]:
        done = CliRunner().invoke(app, shlex.split(block)[1:], catch_exceptions=False)
        assert "48 usable pictures, 0 rejected" in done.stdout


@pytest.mark.slow
def test_the_whole_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_pictures()
    for block in blocks("bash"):
        for line in block.splitlines():
            done = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
            assert done.exit_code == 0, f"{line}\n{done.output}"
    assert {"log.jsonl", "samples", "rejected.jsonl", "recipe.yaml", "environment.json", "checkpoints"} <= {
        path.name for path in (tmp_path / "runs" / "mine").iterdir()
    }
