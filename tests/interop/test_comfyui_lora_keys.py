"""What the format `comfyui` writes is what ComfyUI looks for, layer by layer, at the published sizes."""

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from comfyui_lora_keys import SIDES, Rows, comfyui_keys
from safetensors.torch import load_file
from torch import nn

from lavibridge import Bridge, export
from lavibridge.core.low_rank import named_layers
from lavibridge.core.paths import configurations_folder
from lavibridge.interop.lora_files import LORA_FILE, comfyui_lora_state

PUBLISHED = {
    "sd": "sd1/unet",
    "sd2": "sd2/unet",
    "sdxl": "sdxl/unet",
    "sd3": "sd3/transformer",
    "sd3.5 medium": "sd3.5-medium/transformer",
    "flux": "flux1-dev/transformer",
    "pixart": None,
}
"""Model -> its shipped configuration; PixArt's is the default of its class."""


def network(name: str) -> nn.Module:
    """The denoiser without weights."""
    place = PUBLISHED[name]
    with torch.device("meta"):
        if place is None:
            return diffusers.PixArtTransformer2DModel()
        config = json.loads((configurations_folder() / place / "config.json").read_text())
        return getattr(diffusers, config["_class_name"]).from_config(config)


def pairs_of(layers: dict[str, Any]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    with torch.device("meta"):
        return {
            name: (torch.empty(layer.weight.shape[0], 4), torch.empty(4, *layer.weight.shape[1:]))
            for name, layer in layers.items()
        }


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_layer_has_the_key_that_comfyui_looks_for(name: str) -> None:
    denoiser = network(name)
    layers = named_layers(denoiser)
    known = comfyui_keys(type(denoiser).__name__, denoiser.config)
    state = comfyui_lora_state(pairs_of(layers), type(denoiser).__name__)
    is_unet = isinstance(denoiser, diffusers.UNet2DConditionModel)
    places: dict[Rows, str] = {}
    for layer, module in layers.items():
        key = f"lora_unet_{layer.replace('.', '_')}" if is_unet else f"transformer.{layer}"
        assert key in known, f"ComfyUI has no key for {layer}"
        assert f"{key}.alpha" in state
        assert any({key + up, key + down} <= state.keys() for up, down in SIDES)
        place = known[key]
        assert place not in places, f"{layer} and {places.get(place)} have one place"
        places[place] = layer
        rows = module.weight.shape[0]
        assert place.count in (None, rows), f"{layer} has {rows} rows, and its place {place.count}"
    assert len(state) == 3 * len(layers)


@pytest.mark.parametrize("name", PUBLISHED)
def test_ranges_of_one_matrix_follow_each_other(name: str) -> None:
    denoiser = network(name)
    known = comfyui_keys(type(denoiser).__name__, denoiser.config)
    ranges: dict[str, list[Rows]] = {}
    for place in known.values():
        ranges.setdefault(place.weight, []).append(place)
    for weight, parts in ranges.items():
        ordered, start = sorted(parts, key=lambda each: each.first), 0
        for part in ordered:
            assert part.first == start, weight
            start += part.count or 0
        assert len(parts) == 1 or all(part.count for part in parts)


@pytest.mark.parametrize("vision", ["sd", "sdxl", "sd3", "flux", "pixart"])
def test_the_exported_file_holds_no_other_keys(vision: str, tmp_path: Path) -> None:
    """The family's own targets, through the whole way."""
    small = {"rank": 2, "dropout": 0.0}
    toy = {"kind": vision, "source": "random"}
    bridge = Bridge.compose({"kind": "t5", "source": "random"}, toy, "linear", None, small)
    backbone = bridge.vision.backbone
    known = comfyui_keys(type(backbone).__name__, backbone.config)
    state = load_file(export(bridge, "comfyui", tmp_path / "out") / LORA_FILE)
    stems = {key.removesuffix(".alpha") for key in state if key.endswith(".alpha")}
    assert stems
    assert stems <= known.keys()
    allowed = {stem + side for stem in stems for sides in SIDES for side in sides}
    assert {key for key in state if not key.endswith(".alpha")} <= allowed
