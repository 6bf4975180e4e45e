"""`vision.lora_files`: a run trains on a denoiser with LoRA files in it, knows them again and keeps them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from added_lora import deltas, some_pairs, write_kohya
from run_folder import rows

from lavibridge import Bridge, BridgePipeline, train
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.errors import LaviError, ModelError, RecipeError
from lavibridge.core.low_rank import named_layers
from lavibridge.recipes.recipe import Recipe, load_recipe
from lavibridge.training.build_bridge import build_bridge

Toy = Callable[..., Recipe]
SD: dict[str, Any] = {"kind": "sd", "source": "random"}


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with changes of every third layer, and of the text encoder, which a bridge does not use."""
    path = tmp_path_factory.mktemp("lora") / "style.safetensors"
    network = model_of_choice("vision", SD).backbone
    write_kohya(some_pairs(network, (4,), every=3), path, {}, alpha=8.0)
    return path


def test_a_run_trains_on_the_changed_denoiser_resumes_with_it_and_keeps_it(
    toy: Toy, lora_file: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "moved.safetensors"
    moved.parent.mkdir()
    shutil.copy(lora_file, moved)

    def recipe(path: Path, strength: float, steps: int = 1) -> Recipe:
        files = [{"path": str(path), "strength": strength}]
        return toy(vision={"lora_files": files}, training={"steps": steps, "checkpoint_every": 1})

    plain = train(toy(training={"steps": 1}), tmp_path / "plain")
    run = train(recipe(lora_file, 0.5), tmp_path / "run")
    assert rows(run)[0]["loss"] != rows(plain)[0]["loss"]
    with pytest.raises(LaviError, match=r"the vision model was .* with LoRA .* x 0\.5, is .* x 0\.6"):
        train(recipe(lora_file, 0.6, 2), run, resume=True)
    train(recipe(moved, 0.5, 2), run, resume=True)
    straight = train(recipe(lora_file, 0.5, 2), tmp_path / "straight")
    assert [row["loss"] for row in rows(run)] == [row["loss"] for row in rows(straight)]
    moved.unlink()
    bridge = BridgePipeline.from_pretrained(run, device="cpu").bridge
    bridge.unmerge()
    own, network = named_layers(model_of_choice("vision", SD).backbone), named_layers(bridge.vision.backbone)
    changes = deltas(some_pairs(bridge.vision.backbone, (4,), every=3), lambda name, rank: 0.5 * 8.0 / rank)
    for name, layer in network.items():
        added = layer.weight - own[name].weight - changes.get(name, torch.zeros(()))
        assert float(added.abs().max()) <= 1e-5, name
    assert [(each.name, each.strength) for each in bridge.vision.folded] == [("moved.safetensors", 0.5)]


def test_a_run_starts_from_a_bridge_with_the_same_lora_files_only(
    toy: Toy, lora_file: Path, tmp_path: Path
) -> None:
    vision = {"lora_files": [{"path": str(lora_file)}]}
    run = train(toy(vision=vision, training={"steps": 1}), tmp_path / "run")
    start = {"steps": 1, "start": {"bridge": str(run)}}
    with pytest.raises(
        RecipeError, match=r"the LoRA files \[style.*\] in its denoiser, and the recipe names \[\]"
    ):
        train(toy(training=start), tmp_path / "without")
    again = train(toy(vision=vision, training=start), tmp_path / "again")
    (folded,) = Bridge.from_pretrained(again, device="cpu").vision.folded
    assert folded.strength == 1


def test_a_recipe_names_files_early_and_a_plan_needs_no_weights(
    toy: Toy, lora_file: Path, tmp_path: Path
) -> None:
    setting = f"vision.lora_files=[{{path: {lora_file}, strength: 0.8}}]"
    section: Any = load_recipe("mini-llama_mini-sd_lavi", [setting]).vision
    assert [(each.path, each.strength) for each in section.lora_files] == [(lora_file, 0.8)]
    for value, message in (
        ("[{file: a}]", r"vision\.lora_files\.0\.file: unknown key"),
        ("[{path: a, strength: .inf}]", "finite number"),
        ("style.safetensors", "lora_files"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe("mini-llama_mini-sd_lavi", [f"vision.lora_files={value}"])
    planned = build_bridge(toy(vision={"lora_files": [{"path": str(lora_file)}]}), torch.device("meta"))
    assert planned.vision.placement.is_meta
    with pytest.raises(ModelError, match="there is no LoRA file"):
        build_bridge(toy(vision={"lora_files": [{"path": str(tmp_path / "gone.safetensors")}]}))
    run = tmp_path / "run"
    inside = {"lora_files": [{"path": str(run / "style.safetensors")}]}
    with pytest.raises(LaviError, match="inside the run's own folder"):
        train(toy(vision=inside, training={"steps": 1}), run)


def test_the_strength_is_part_of_a_model_s_identity(lora_file: Path) -> None:
    def identity(*strengths: float) -> str:
        files = [{"path": lora_file, "strength": strength} for strength in strengths]
        return str(model_of_choice("vision", {**SD, "lora_files": files}).identity())

    with pytest.raises(ModelError, match="would double its effect"):
        identity(1.0, 0.5)
    assert len({identity(), identity(1.0), identity(0.5)}) == 3
