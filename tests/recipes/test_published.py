"""The shipped recipes of published bridges: toys of them train, and full ones have the published weights."""

from typing import Any

import pytest
import torch
from published_configs import PIXART, SD14, T5_BASE, T5_LARGE

from lavibridge import Bridge
from lavibridge.core import registry
from lavibridge.core.contracts import Batch
from lavibridge.recipes.recipe import Recipe, load_recipe, shipped_recipes
from lavibridge.training.build_bridge import build_bridge

PUBLISHED = [
    name
    for name in shipped_recipes()
    if "mini" not in name and name != "quickstart" and not name.endswith("_aligned")
]
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai/clip-vit-large-patch14": (
        "clip",
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 77,
        },
    ),
    "google-t5/t5-small": (
        "t5",
        {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    ),
    "google-t5/t5-base": (
        "t5",
        T5_BASE,
    ),
    "google-t5/t5-large": (
        "t5",
        T5_LARGE,
    ),
    "google/flan-t5-xl": (
        "t5",
        {"d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
    ),
    "meta-llama/Llama-2-7b-hf": (
        "llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 4096,
        },
    ),
    "CompVis/stable-diffusion-v1-4": ("sd", SD14),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": ("sd", SD14),
    "CompVis/ldm-text2im-large-256": ("ldm", {"sample_size": 32, "cross_attention_dim": 1280}),
    "PixArt-alpha/PixArt-XL-2-512x512": (
        "pixart",
        PIXART,
    ),
}
"""The sizes in the published models' own configurations; LDM's U-Net is assumed to have SD's layout."""
WEIGHTS = {
    "clip_sd14_lavi": (2_359_296, 14_172_672, 28_291_072),
    "t5-small_sd14_lavi": (786_432, 8_663_680, 28_291_072),
    "t5-base_sd14_lavi": (2_359_296, 14_172_672, 28_291_072),
    "t5-large_sd14_lavi": (6_291_456, 21_254_528, 28_291_072),
    "llama2-7b_sd14_lavi": (33_554_432, 228_920_192, 28_291_072),
    "t5-large_pixart_lavi": (6_291_456, 113_288_704, 16_515_072),
    "flan-t5-xl_sd15_ella": (0, 66_820_608, 0),
}
"""Weights of language LoRA, connector and vision LoRA, as published."""


def at_full_size(room: str, section: Any) -> Any:
    """The recipe's model on the meta device: shapes without weights."""
    kind, sizes = SIZES[section.source]
    assert kind == section.kind
    family = registry.load_kind(room, kind)
    full = type(family.__name__, (family,), {"toy": sizes})
    options = section.model_dump(exclude={"kind", "source"})
    return full(family.Config(source="random", **options))


def composed(recipe: Recipe) -> Bridge:
    with torch.device("meta"):
        return Bridge.compose(
            at_full_size("language", recipe.language),
            at_full_size("vision", recipe.vision),
            recipe.connector.model_dump(),
            recipe.lora.language,
            recipe.lora.vision,
        )


def test_the_papers_tables_have_their_recipes() -> None:
    assert set(WEIGHTS) | {"t5-large_ldm_lavi", "llama2-7b_sd14_llmdiff"} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_of_weights(name: str) -> None:
    parts = composed(load_recipe(name)).trained_parameters()
    counts = tuple(sum(value.numel() for value in values.values()) for values in parts.values())
    if name in WEIGHTS:
        assert counts == WEIGHTS[name]
    else:
        assert counts[1] > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_toy_of_each_trains_a_step(name: str) -> None:
    recipe = load_recipe(name, ["language.source=random", "vision.source=random"])
    small = {
        f"lora.{side}.rank=4" for side in ("language", "vision") if getattr(recipe.lora, side) is not None
    }
    recipe = load_recipe(name, ["language.source=random", "vision.source=random", *small])
    bridge = build_bridge(recipe).train()
    side = bridge.vision.default_size
    latents, noise = torch.randn(2, 2, *bridge.vision.latent_shape(side, side))
    batch = Batch(prompts=("a red cat", ""), names=("a", "b"), latents=latents)
    loss = bridge(batch, torch.tensor([100, 900]), noise).mean()
    loss.backward()
    assert all(
        any(value.grad is not None and bool(value.grad.any()) for value in part.values())
        for part in bridge.trained_parameters().values()
        if part
    )
