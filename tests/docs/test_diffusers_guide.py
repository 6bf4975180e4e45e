"""The guide on Diffusers: its Python and its command run, in their order, on a small bridge."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavibridge import Bridge
from lavibridge.cli.main import app

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "diffusers.md"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Bridge.compose({"kind": "t5", "source": "random"}, "mini-sd").save_pretrained("runs/mine")
    names: dict[str, object] = {}
    ran = 0
    for language, block in re.findall(r"^```(bash|python)\n(.*?)^```", GUIDE.read_text(), flags=re.M | re.S):
        ran += 1
        if language == "bash":
            done = CliRunner().invoke(app, shlex.split(block)[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            continue
        block = block.replace("num_inference_steps=20", "num_inference_steps=1")
        block = block.replace("strength=0.7", "strength=0.7, num_inference_steps=2")
        block = block.replace('circle")).images', 'circle"), num_inference_steps=1).images')
        exec(compile(block, GUIDE.name, "exec"), names)
    assert ran == 4
    assert Path("circle.png").is_file()
