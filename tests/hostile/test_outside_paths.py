"""Names in files of strangers lead to no file outside their folder."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.core.errors import LaviError, ModelError, RunError
from lavibridge.core.paths import models_folder, path_below
from lavibridge.evaluation.provenance import read_scored_records
from lavibridge.evaluation.records import read_records
from lavibridge.interop.export import export


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """An evaluation's folder beside a secret picture."""
    folder = tmp_path / "run" / "evaluation" / "suite"
    folder.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


@pytest.mark.parametrize(
    "file", ["../../../secret.png", "/etc/hostname", "link.png", "a/../../x.png", "a\0b"]
)
def test_records_name_images_of_their_folder_only(evaluation: Path, file: str) -> None:
    """The report and `lavi ab build` read records by this function alone."""
    record = {"category": "", "prompt": "a", "seed": 0, "file": file, "drawn_with": "x"}
    (evaluation / "records.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(RunError, match="which is not in this folder"):
        read_records(evaluation)
    with pytest.raises(RunError, match="which is not in this folder"):
        read_scored_records(evaluation, {"metrics": {}, "drawn_with": "x"})


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"file": 3}', "[" * 100_000, "\udcff"])
def test_other_lines_are_damage(evaluation: Path, line: str) -> None:
    (evaluation / "records.jsonl").write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(RunError, match=r"line 1 is damaged|another format"):
        read_records(evaluation)


def test_a_name_below_its_folder_passes(tmp_path: Path) -> None:
    assert path_below(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
    assert path_below(tmp_path, "a/../b.png").name == "b.png"


def test_an_export_copies_plain_parts_only(tmp_path: Path) -> None:
    pipeline = Path(shutil.copytree(models_folder() / "mini-sd", tmp_path / "model"))
    bridge = Bridge.compose("mini-t5-small", str(pipeline), "linear", language_lora=None, vision_lora=None)
    index = (pipeline / "model_index.json").read_text()
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "config.json").write_text("{}")
    for name in ("../secret", "/etc", "a/b", "..", "vae\0"):
        part = {name: ["transformers", "CLIPTextModel"]}
        (pipeline / "model_index.json").write_text(json.dumps(json.loads(index) | part))
        with pytest.raises(ModelError, match="which is no folder's name"):
            export(bridge, "diffusers", tmp_path / "out")
    (pipeline / "model_index.json").write_text(index)
    (pipeline / "vae" / "leak.json").symlink_to(secret / "config.json")
    with pytest.raises(ModelError, match=r"leak\.json is a link out of"):
        export(bridge, "diffusers", tmp_path / "out")
    shutil.rmtree(pipeline / "tokenizer")
    (pipeline / "tokenizer").symlink_to(secret)
    with pytest.raises(LaviError):
        export(bridge, "diffusers", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "secret"]
