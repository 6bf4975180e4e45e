"""The guide to ComfyUI: its commands run on a toy SDXL file, and the node opens what they write."""

import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from single_files import write_single_file
from toy_pipelines import pipeline
from typer.testing import CliRunner

from lavibridge.cli.main import app

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "comfyui.md"
SMALL = {
    "align": [
        "language=mini-llama",
        "training.align.steps=2",
        "training.align.batch=2",
        "connector.latents=4",
    ],
    "export": [],
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
    (block,) = re.findall(r"^```bash\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.M | re.S)
    for line in block.splitlines():
        words = shlex.split(line)
        done = CliRunner().invoke(app, [*words[1:], *SMALL[words[1]]], catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
    spec = importlib.util.spec_from_file_location("nodes_of_guide", ROOT / "integrations/comfyui/__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, package)
    spec.loader.exec_module(package)
    for file in ("sdxl.safetensors", "sdxl"):
        shutil.move(file, f"{file}.away")  # the nodes need no image model
    (bridge,) = package.NODE_CLASS_MAPPINGS["LaviLoadBridge"]().load("my-bridge.safetensors")
    (((tensor, extra),),) = package.NODE_CLASS_MAPPINGS["LaviEncodePrompt"]().encode(
        bridge, "a (red:1.2) circle", False
    )
    assert tensor.shape == (1, 4, bridge.denoiser.context)
    assert extra["pooled_output"].shape == (1, bridge.denoiser.pooled)
