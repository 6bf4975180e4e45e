"""What stands in the way of a model's weights is said, with what to do about it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.errors import ModelError
from lavibridge.core.paths import models_folder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 3\n"
Change = Callable[[Path], object]


def variant(path: Path) -> None:
    path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))


@pytest.mark.parametrize(
    ("room", "model", "weights"),
    [
        ("language", "mini-llama", "model.safetensors"),
        ("vision", "mini-sd", "unet/diffusion_pytorch_model.safetensors"),
        ("vision", "mini-sd", "vae/diffusion_pytorch_model.safetensors"),
    ],
)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (variant, "only the variant .*fp16.safetensors of its weights: rename"),
        (lambda path: path.write_bytes(POINTER), "is a pointer of git-lfs: .*git lfs pull"),
        (lambda path: path.rename(path.with_suffix(".bin")), "bin, but pickles are not supported"),
        (lambda path: path.unlink(), "has no weights"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "cannot be loaded: "),
    ],
)
def test_weights_that_cannot_be_read_are_named(
    tmp_path: Path, room: str, model: str, weights: str, change: Change, said: str
) -> None:
    shutil.copytree(models_folder() / model, tmp_path / model)
    change(tmp_path / model / weights)
    with pytest.raises(ModelError, match=said) as caught:
        model_of_choice(room, str(tmp_path / model))
    assert "\n" not in str(caught.value)


def test_the_advice_for_a_variant_helps(tmp_path: Path) -> None:
    shutil.copytree(models_folder() / "mini-llama", tmp_path / "llama")
    variant(tmp_path / "llama" / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        model_of_choice("language", str(tmp_path / "llama"))
    command = str(caught.value).split("`")[1]
    subprocess.run(command.split(), cwd=tmp_path / "llama", check=True)
    assert model_of_choice("language", str(tmp_path / "llama"))


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("owner/name", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("smolm2", {"HF_HUB_OFFLINE": "1"}, "did you mean 'smollm2'?"),
        ("owner/name", {"HF_ENDPOINT": "no-address"}, "the hub (no-address) cannot be reached ("),
    ],
)
def test_a_hub_that_is_not_reached_is_told_apart(
    tmp_path: Path, source: str, settings: dict[str, str], said: str
) -> None:
    code = f"from lavibridge.core.sources import read_model_json as r; r({source!r}, 'config.json')"
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_HOME": str(tmp_path), **settings}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith("lavibridge.core.errors.ModelError: ")
    assert said in told
