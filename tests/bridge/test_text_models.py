"""Bridges with the language models of today: composed, saved, loaded, aligned and planned."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from toy_pipelines import pipeline
from toy_text_models import TOYS, save_toy

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.contracts import Batch
from lavibridge.plan.estimate import estimate_costs
from lavibridge.plan.meta_model import build_meta_bridge, model_parts
from lavibridge.plan.meta_values import MetaValues
from lavibridge.plan.meter import Meter
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.training.alignment.aligner import Aligner
from lavibridge.training.alignment.captions import AlignmentCaptions
from lavibridge.training.alignment.objective import alignment_method
from lavibridge.training.build_bridge import build_bridge

CAPTIONS = ("a red circle", "a small blue star", "a large striped green ring above a yellow cross", "")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("toys")
    return {name: save_toy(name, root / name) for name in TOYS}


@pytest.fixture(scope="module")
def own_encoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A toy Stable Diffusion with a text encoder of its own, and the number of tokens that it reads."""
    folder = tmp_path_factory.mktemp("own-encoder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipeline("sd").save_pretrained(folder)
    return folder, BridgePipeline.native(folder, device="cpu").bridge.condition(["a"]).tokens.shape[1]


def recipe_of(language: Path, vision: tuple[Path, int]) -> Recipe:
    return make_recipe(
        {
            "language": {"source": str(language), "max_tokens": 24},
            "vision": {"source": str(vision[0])},
            "connector": {"kind": "resampler", "latents": vision[1], "blocks": 1, "heads": 4},
            "lora": {"language": None, "vision": None},
            "data": {"kind": "world", "scenes": 8, "size": 16},
            "training": {"steps": 1, "batch": 2, "align": {"match": "tokens", "batch": 3, "steps": 2}},
        }
    )


@pytest.mark.parametrize("name", TOYS)
def test_composed_saved_and_loaded(name: str, folders: Mapping[str, Path], tmp_path: Path) -> None:
    bridge = Bridge.compose(
        {"source": str(folders[name])},
        {"kind": "sd", "source": "random"},
        {"kind": "linear"},
        language_lora={"rank": 2},
        vision_lora=None,
    )
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *bridge.vision.latent_shape(16, 16), generator=generator)
    batch = Batch(prompts=CAPTIONS[:2], names=("a", "b"), latents=latents)
    bridge(batch, torch.tensor([20, 800]), torch.randn_like(latents)).mean().backward()
    trained = bridge.trained_parameters()["language_lora"]
    assert all(bool(weight.grad.any()) for key, weight in trained.items() if "lora_B" in key)  # type: ignore[union-attr]
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    bridge.save_pretrained(tmp_path / "bridge")
    again = Bridge.from_pretrained(tmp_path / "bridge")
    expected, found = (each.eval().condition(list(CAPTIONS)).tokens for each in (bridge, again))
    assert torch.equal(expected, found)


@pytest.mark.parametrize("name", TOYS)
def test_aligned(name: str, folders: Mapping[str, Path], own_encoder: tuple[Path, int]) -> None:
    recipe = recipe_of(folders[name], own_encoder)
    bridge = build_bridge(recipe)
    captions = AlignmentCaptions(training=CAPTIONS, held_out=CAPTIONS[:2])
    aligner = Aligner(bridge, alignment_method(recipe), captions, recipe.training)
    aligner.objective.prepare(bridge, aligner.teacher, [])
    before = {key: value.clone() for key, value in bridge.connector.state_dict().items()}
    fvu, norm = aligner.step(0, 1e-2)
    assert 0 < fvu < 100
    assert norm > 0
    after = bridge.connector.state_dict()
    assert not all(torch.equal(value, before[key]) for key, value in after.items())


@pytest.mark.parametrize("name", TOYS)
def test_a_plan_reads_prompts_without_weights(
    name: str, folders: Mapping[str, Path], own_encoder: tuple[Path, int]
) -> None:
    bridge = build_meta_bridge(recipe_of(folders[name], own_encoder))
    with MetaValues(), Meter(bridge.parameters()) as meter:
        features = bridge.features(list(CAPTIONS))
    assert features.hidden.is_meta
    blocks = [value for value in bridge.language.backbone.parameters() if value.ndim == 2]
    assert sum(each.flops for each in meter.work) > 2 * len(CAPTIONS) * max(
        value.numel() for value in blocks[1:]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_planned(name: str, folders: Mapping[str, Path], own_encoder: tuple[Path, int]) -> None:
    """The language model has LoRA, so that its backward pass is planned too."""
    recipe = recipe_of(folders[name], own_encoder)
    trained = make_recipe({**recipe.model_dump(), "lora": {"language": {"rank": 2}, "vision": None}})
    planned, bridge = build_meta_bridge(trained), build_bridge(trained)
    assert model_parts(planned, None) == model_parts(bridge, None)
    assert estimate_costs(trained, planned, 2, None, "cpu").passes
