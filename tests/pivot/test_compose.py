"""Any language half with any vision half: an ordinary bridge, or a refusal that names what does not fit."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_pivot import CONFIG, LANGUAGES, LEARNING, VISIONS, make_pivot

from lavibridge import Bridge, BridgePipeline
from lavibridge.bridge.choices import model_of_choice
from lavibridge.connectors.pivot import LanguageHalf, Pivot
from lavibridge.core.errors import LaviError, ModelError, RunError
from lavibridge.core.files import file_sha256, write_json
from lavibridge.core.paths import models_folder
from lavibridge.pivot import compose
from lavibridge.pivot.folder import PivotFolder, read_pivot
from lavibridge.pivot.half import read_half, write_half

PROMPTS = ["a red circle", "a small blue star above a ring"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("language", "vision"), list(product(LANGUAGES, VISIONS)))
def test_every_pair_is_a_bridge_that_draws_and_comes_back_from_disk(
    pivot: PivotFolder, tmp_path: Path, language: str, vision: str
) -> None:
    bridge = compose(pivot.folder, language, vision)
    for side, name in (("language", language), ("vision", vision)):
        half = bridge.connector.get_submodule(f"{side}_half").state_dict()
        saved = load_file(pivot.folder / side / name / "half.safetensors")
        assert half.keys() == saved.keys()
        assert all(torch.equal(half[key], value) for key, value in saved.items())
    bridge.save_pretrained(tmp_path / "saved")
    shutil.rmtree(pivot.folder)
    loaded = Bridge.from_pretrained(tmp_path / "saved", device="cpu")
    made, again = (each.condition(PROMPTS) for each in (bridge, loaded))
    assert torch.equal(made.tokens, again.tokens)
    assert (made.pooled is None) == (vision == "sd")
    image = BridgePipeline(loaded)("a red circle", seed=0, num_inference_steps=2).images[0]
    assert image.size[0] == image.size[1] == loaded.vision.default_size


def test_all_language_halves_meet_one_vision_half_in_the_same_space(pivot: PivotFolder) -> None:
    first, second = (compose(pivot.folder, name, "sd") for name in LANGUAGES)
    for name, value in first.connector.vision_half.state_dict().items():
        assert torch.equal(value, second.connector.vision_half.state_dict()[name])
    assert not torch.equal(first.condition(PROMPTS).tokens, second.condition(PROMPTS).tokens)


def test_a_composed_bridge_trains(pivot: PivotFolder) -> None:
    small = {"rank": 2}
    bridge = compose(pivot.folder, "bert", "sd", language_lora=small, vision_lora=small)
    assert all(bridge.trained_parameters().values())
    made = bridge.condition(PROMPTS).tokens
    made[0].sum().backward()
    assert all(each.grad is not None for each in bridge.connector.language_half.parameters())


def ruin_pivot_id(folder: Path) -> None:
    make_pivot(folder.parents[2] / "other pivot", "second")
    shutil.rmtree(folder)
    shutil.copytree(folder.parents[2] / "other pivot" / "language" / folder.name, folder)


def truncate(folder: Path) -> None:
    weights = folder / "half.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def put_nan(folder: Path) -> None:
    weights = load_file(folder / "half.safetensors")
    weights["latents"][0, 0] = float("nan")
    save_file(weights, folder / "half.safetensors")
    rehash(folder)


def rehash(folder: Path) -> None:
    description = json.loads((folder / "half.json").read_text())
    description["files"] = {name: file_sha256(folder / name) for name in description["files"]}
    write_json(folder / "half.json", description)


def edit(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        description = json.loads((folder / "half.json").read_text())
        write_json(folder / "half.json", {**description, **changes})

    return apply


@pytest.mark.parametrize(
    ("ruin", "message"),
    [
        (ruin_pivot_id, r"bert belongs to pivot second, but .*pivot is pivot first"),
        (truncate, r"bert/half\.safetensors has changed since it was saved"),
        (lambda folder: (folder / "half.safetensors").unlink(), r"half\.safetensors is missing"),
        (put_nan, r"language half .*bert: 1 of .* values are not finite, for example in latents"),
        (edit(side="vision"), r"bert holds a vision half: move it into .*vision"),
        (edit(format=7), r"half\.json has format 7"),
        (edit(pivot=None), r"half\.json is damaged \(pivot: "),
        (lambda folder: (folder / "half.json").write_text("{"), r"half\.json is not valid JSON"),
    ],
)
def test_a_half_that_is_none_is_refused_before_models_load(
    pivot: PivotFolder, ruin: Callable[[Path], None], message: str
) -> None:
    ruin(pivot.place("language", "bert"))
    with pytest.raises(LaviError, match=message):
        read_half(pivot, "language", "bert")
    with pytest.raises(LaviError, match=message):
        compose(pivot.folder, "bert", "sd")


def test_names_that_are_none_are_refused_with_those_there_are(pivot: PivotFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no language half 'bertt'; did you mean 'bert'\? .*bert, llama"):
        compose(pivot.folder, "bertt", "sd")
    with pytest.raises(RunError, match=r"there is no folder .*nowhere"):
        read_pivot(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"is not a pivot: it has no pivot\.json"):
        read_pivot(tmp_path)


def copied(source: str, folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """Copy a shipped language model's folder, with other weights."""
    shutil.copytree(models_folder() / source, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: change(name, value) for name, value in weights.items()}, folder / "model.safetensors")
    return folder


def in_8_bits(name: str, value: torch.Tensor) -> torch.Tensor:
    """Round the rows of a matrix to 256 values, as Q8_0 does to blocks of 32."""
    if value.dim() < 2:
        return value
    scale = value.abs().amax(-1, keepdim=True) / 127
    return (value / scale.clamp_min(1e-12)).round() * scale


def tuned(name: str, value: torch.Tensor) -> torch.Tensor:
    """Move a matrix as a fine-tuning does, by LoRA of rank 4 and a twentieth of its size."""
    if value.dim() < 2 or "embed" in name:
        return value
    generator = torch.Generator().manual_seed(len(name))
    low = torch.randn(len(value), 4, generator=generator) @ torch.randn(
        4, value.shape[1], generator=generator
    )
    return value + 0.05 * low * value.norm() / low.norm()


@pytest.fixture(scope="module")
def bert_pivot(written: Path, tmp_path_factory: pytest.TempPathFactory) -> PivotFolder:
    """A pivot in which a language half belongs to mini-bert."""
    folder = read_pivot(shutil.copytree(written, tmp_path_factory.mktemp("bert") / "pivot"))
    language = model_of_choice("language", "mini-bert")
    config = Pivot.Config.model_validate(CONFIG)
    half = LanguageHalf(config, language.spec)
    place = folder.place("language", "mini-bert")
    write_half(place, folder.description.id, language, config, half, LEARNING)
    return folder


@pytest.mark.parametrize(
    ("change", "dtype"),
    [
        (lambda name, value: value, "float32"),
        (lambda name, value: value.half(), "float32"),
        (lambda name, value: value, "bfloat16"),
        (in_8_bits, "float32"),
    ],
    ids=["folder", "float16 on disk", "bfloat16 in memory", "8 bits"],
)
def test_one_model_in_other_files_is_the_same_model(
    bert_pivot: PivotFolder,
    tmp_path: Path,
    change: Callable[[str, torch.Tensor], torch.Tensor],
    dtype: str,
) -> None:
    folder = copied("mini-bert", tmp_path / "mine", change)
    bridge = compose(bert_pivot.folder, {"source": folder, "dtype": dtype}, "sd")
    assert bridge.origin["language_half"] == "mini-bert"
    assert bridge.language.config.source == str(folder)


def test_a_fine_tuned_or_another_model_is_refused(bert_pivot: PivotFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'mini-bert': its features of the captions differ by \d"):
        compose(bert_pivot.folder, str(copied("mini-bert", tmp_path / "tuned", tuned)), "sd")
    with pytest.raises(ModelError, match=r"'mini-bert': its kind is t5, not bert"):
        compose(bert_pivot.folder, "mini-t5-small", "sd")
    with pytest.raises(ModelError, match=r"no vision half for the model 'mini-sd'.*'sd': it has context"):
        compose(bert_pivot.folder, "mini-bert", "mini-sd")
