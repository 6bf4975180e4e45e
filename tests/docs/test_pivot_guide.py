"""The guide that adds models to a pivot: its commands and its Python in their order, with fewer steps."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavibridge.cli.main import app

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "pivot.md"
SHORT = ("data.scenes=64", "training.align.steps=2", "training.align.batch=4")
ONE = ("--limit", "1", "--category", "one")
FEW = {
    "create": SHORT,
    "add-language": SHORT,
    "add-vision": SHORT,
    "add-image-encoder": SHORT,
    "generate": ("--steps", "2"),
    "evaluate": ("--steps", "2", *ONE),
    "rank": (*SHORT, "--no-draw"),
    "train": ("data.scenes=64", "training.steps=1", "training.batch=2"),
}


@pytest.mark.usefixtures("one_thread")
def test_the_whole_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text(encoding="utf-8")
    done = 0
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", text, flags=re.M | re.S):
        if language == "python":
            exec(compile(f"{imports(text)}\n{block}", GUIDE.name, "exec"), {})
            continue
        for line in block.splitlines():
            arguments = shlex.split(line)[1:]
            short = FEW.get(arguments[1] if arguments[0] == "pivot" else arguments[0], ())
            result = CliRunner().invoke(app, [*arguments, *short], catch_exceptions=False)
            assert result.exit_code == 0, f"{line}\n{result.output}"
            done += 1
    assert done == 10
    halves = {path.name for path in (tmp_path / "pivots/mini/language").iterdir()}
    assert halves == {"mini-llama", "mini-bert"}
    assert (tmp_path / "bridges/bert_pixart/bridge.json").is_file()
    assert list((tmp_path / "pictures").glob("*.png"))
    assert len(json.loads((tmp_path / "rank.json").read_text())["models"]) == 4
    assert (tmp_path / "runs/from_pair/checkpoints/step-1/bridge/bridge.json").is_file()


def imports(text: str) -> str:
    """The imports of the page, which later blocks rely on."""
    return "\n".join(re.findall(r"^from .* import .*$", text, flags=re.M))
