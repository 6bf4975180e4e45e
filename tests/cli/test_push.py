"""`lavi push --dry-run` shows the files, the model card and the licences to fill in, without a network."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from lavibridge import Bridge, read_lora_file
from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it: a checkpoint and two sheets of samples."""
    folder = tmp_path_factory.mktemp("push") / "run"
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"},
        {"kind": "sd", "source": "random"},
        language_lora={"rank": 2},
        vision_lora={"rank": 2},
    )
    bridge.save_pretrained(folder / "checkpoints/step-4/bridge")
    (folder / "checkpoints/step-4/manifest.json").write_text("{}")
    (folder / "samples").mkdir()
    for step, color in ((4, "red"), (10, "blue")):
        Image.new("RGB", (step, step), color).save(folder / f"samples/step-{step}.png")
    return folder


def lavi(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["push", *map(str, arguments)])
    if isinstance(done.exception, LaviError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_dry_run_lists_the_files_with_their_sizes_and_shows_the_card(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", None)  # nothing may ask the hub
    text = lavi(run, "somebody/toy", "--license", "apache-2.0", "--dry-run")
    listed, _, card = text.partition("nothing was uploaded")
    saved = run / "checkpoints/step-4/bridge"
    for name in ("bridge.json", *json.loads((saved / "bridge.json").read_text())["files"]):
        assert f"{(saved / name).stat().st_size:,} bytes  {name}\n" in listed
    assert f"{(run / 'samples/step-10.png').stat().st_size:,} bytes  samples.png\n" in listed
    assert "bytes  README.md\n" in listed
    assert f"bytes in {listed.count('bytes  ')} files for somebody/toy" in text
    assert "\nlicense: apache-2.0\n" in card
    assert "![Images of this bridge.](samples.png)" in card
    assert "| this bridge | apache-2.0 |" in card
    assert card.count("FILL IN") == 2
    assert not list(run.glob("**/README.md"))


def test_the_card_names_the_lora_files_in_the_weights(run: Path, tmp_path: Path) -> None:
    from added_lora import some_pairs, write_kohya

    bridge = Bridge.from_pretrained(run, device="cpu")
    write_kohya(some_pairs(bridge.vision.backbone, every=9), tmp_path / "style.safetensors", {})
    read_lora_file(bridge, tmp_path / "style.safetensors")
    bridge.save_pretrained(tmp_path / "saved")
    text = lavi(tmp_path / "saved", "somebody/toy", "--dry-run")
    assert "| the LoRA file `style.safetensors` in it | FILL IN |" in text
    assert "vision_folded/0/adapter_model.safetensors" in text
    assert "license:" not in text
    assert "samples.png" not in text


def test_what_cannot_be_pushed_is_said_in_a_dry_run_too(run: Path, tmp_path: Path) -> None:
    for repo in ("toy", "a/b/c"):
        with pytest.raises(LaviError, match="is called OWNER/NAME"):
            lavi(run, repo, "--dry-run")
    with pytest.raises(LaviError, match="there is no folder"):
        lavi(tmp_path / "gone", "somebody/toy", "--dry-run")
    damaged = run / "checkpoints/step-4/bridge/connector/config.json"
    content = damaged.read_text()
    damaged.write_text("{}")
    with pytest.raises(LaviError, match="has changed since it was saved"):
        lavi(run, "somebody/toy", "--dry-run")
    damaged.write_text(content)
