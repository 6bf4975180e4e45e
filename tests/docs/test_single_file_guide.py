"""The guide's section on an SDXL file: its commands run on a toy in that layout, in their order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from single_files import write_single_file
from toy_pipelines import pipeline
from typer.testing import CliRunner

from lavibridge.cli.main import app

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "scale.md"
TITLE = "## I have an SDXL file and 12 GB"
TOYS = {
    "align": [
        "language=mini-llama",
        "training.align.steps=2",
        "training.align.batch=2",
        "connector.latents=4",
    ],
    "plan": ["language=mini-llama"],
    "generate": ["--steps", "1"],
}
"""What makes each command small."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = pipeline("sdxl")
    pipe.save_pretrained("whole")
    write_single_file(pipe, Path("sdxl.safetensors"))
    shutil.copytree("whole", "sdxl", ignore=shutil.ignore_patterns("*.safetensors"))
    Path("captions.txt").write_text("a red circle\na blue square\n" * 4)
    section = GUIDE.read_text(encoding="utf-8").split(TITLE)[1].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```", section, flags=re.M | re.S)
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        if words:
            done = CliRunner().invoke(app, [*words[1:], *TOYS[words[1]]], catch_exceptions=False)
            assert done.exit_code == 0, f"{line}\n{done.output}"
    assert len(list(Path("pictures").rglob("*.png"))) == 2
    (code,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S)
    assert "num_inference_steps=20" in code
    exec(compile(code.replace("num_inference_steps=20", "num_inference_steps=1"), GUIDE.name, "exec"), {})
    assert all(list(Path(folder).glob("*.safetensors")) for folder in ("blocks", "own-blocks"))
