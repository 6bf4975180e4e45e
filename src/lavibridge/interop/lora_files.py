"""LoRA of a denoiser as one safetensors file under other tools' names: written, and read again.

    kohya     lora_unet_down_blocks_0_attentions_0_..._to_q   .lora_down.weight  .lora_up.weight  .alpha
    comfyui   the same for U-Nets, else transformer.transformer_blocks.0.attn1.to_q   .lora_A.weight ...
    peft      base_model.model.transformer_blocks.0.attn1.to_q   .lora_A.weight ...   (read only)

y = W x + (alpha / rank) up(down(x)); our scale is 1, so alpha is the rank. Tools give a U-Net's layers the
names of Diffusers with underscores for dots. Convolutions are among them: down has the kernel, up is 1 x 1.

Names were compared with the loaders of ComfyUI and Diffusers; kohya's scripts know U-Nets only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
from torch import Tensor, nn

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.core.tensors import save_tensors
from lavibridge.interop.order import layers, pair_shapes
from lavibridge.interop.weights import read_named
from lavibridge.lora import LoraSettings

FILE = "vision_lora.safetensors"
KOHYA_SIDES = (".lora_up.weight", ".lora_down.weight")
PEFT_SIDES = (".lora_B.weight", ".lora_A.weight")
"""Up and down."""
PREFIXES = ("lora_unet_", lora.PREFIX, "unet.", "transformer.")
SIDES = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}
COMFYUI_TRANSFORMERS = ("PixArtTransformer2DModel", "SD3Transformer2DModel")
"""Transformers whose layers ComfyUI knows by the names of Diffusers."""


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """What became of a file's keys."""

    matched: tuple[str, ...]
    """Keys that were used."""
    unmatched: tuple[str, ...]
    """Keys for which there is no layer."""
    untouched: tuple[str, ...]
    """Layers that have LoRA of which the file says nothing; they keep it."""


def write_kohya(bridge: Bridge, folder: Path) -> None:
    """Write the vision LoRA of a U-Net under kohya's names."""
    pairs = _vision_pairs(bridge)
    if not isinstance(bridge.vision.backbone, diffusers.UNet2DConditionModel):
        raise ModelError(
            f"'{bridge.vision.config.source}' has no U-Net, and kohya's names are for U-Nets: export it as "
            "comfyui, peft or diffusers"
        )
    _write(folder, {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in pairs.items()}, KOHYA_SIDES)


def write_comfyui(bridge: Bridge, folder: Path) -> None:
    """Write the vision LoRA under names that ComfyUI reads."""
    pairs = _vision_pairs(bridge)
    kind = type(bridge.vision.backbone).__name__
    if isinstance(bridge.vision.backbone, diffusers.UNet2DConditionModel):
        write_kohya(bridge, folder)
    elif kind in COMFYUI_TRANSFORMERS:
        named = {f"transformer.{name}": pair for name, pair in pairs.items()}
        _write(folder, named, PEFT_SIDES)
    else:
        raise ModelError(f"ComfyUI knows no names for the layers of a {kind}: export it as peft or diffusers")


def read_lora_file(bridge: Bridge, path: str | Path) -> LoraReport:
    """Put the LoRA of a file into the bridge's vision model, whichever of the tools has written it.

    A vision model without LoRA gets it at the file's rank. Raises ModelError where no key matches, a shape or
    rank does not fit, or half of a pair is missing.
    """
    network = bridge.vision.backbone
    found = read_named(Path(path))
    own = lora.lora_pairs(network)
    known = {name.replace(".", "_"): name for name in (own or layers(network))}
    by_layer: dict[str, dict[str, str]] = {}
    unmatched = []
    for key in found:
        layer, side = _placed(key, known)
        if layer is None:
            unmatched.append(key)
        else:
            by_layer.setdefault(layer, {})[side] = key
    if not by_layer:
        raise ModelError(
            f"{path}: none of its {len(found)} keys, such as {', '.join(sorted(found)[:2])}, names a layer "
            f"of '{bridge.vision.config.source}', such as {next(iter(known.values()), 'none')}: was it made "
            "for another model?"
        )
    pairs = {name: _pair(found, sides, Path(path)) for name, sides in by_layer.items()}
    _check(pairs, layers(network), Path(path))
    rank = next(iter(pairs.values()))[0].shape[1]
    if not own:
        lora.inject(network, LoraSettings(rank=rank, targets=tuple(pairs)), (), "vision model")
        network.train(network.training)  # what was injected begins in training mode
    elif rank != (there := next(iter(own.values()))[0].shape[1]):
        raise ModelError(f"{path} has rank {rank}, the bridge's vision LoRA has rank {there}")
    state = lora.lora_state(network) | lora.named_pairs(pairs)
    lora.load_lora_state(network, state, "vision model")
    return LoraReport(
        matched=tuple(sorted(key for sides in by_layer.values() for key in sides.values())),
        unmatched=tuple(sorted(unmatched)),
        untouched=tuple(sorted(own.keys() - pairs.keys())),
    )


def _vision_pairs(bridge: Bridge) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = lora.lora_pairs(bridge.vision.backbone)
    if not pairs:
        raise ModelError(
            "the bridge has no vision LoRA, so there is nothing to write in this format: use the vision "
            "model as it is"
        )
    return pairs


def _write(folder: Path, pairs: Mapping[str, tuple[Tensor, Tensor]], sides: tuple[str, str]) -> None:
    rank = next(iter(pairs.values()))[0].shape[1]
    state: dict[str, Tensor] = {}
    for name, (up, down) in pairs.items():
        state[name + sides[0]] = up
        state[name + sides[1]] = down
        state[f"{name}.alpha"] = torch.tensor(float(rank))
    folder.mkdir(parents=True, exist_ok=True)
    told = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(rank)}
    save_tensors(state, folder / FILE, told)


def _placed(key: str, known: Mapping[str, str]) -> tuple[str | None, str]:
    """The layer that a key is for, None where there is none, and the side: up, down or alpha."""
    for end, side in SIDES.items():
        if key.endswith(end):
            name = key.removesuffix(end)
            for prefix in PREFIXES:
                name = name.removeprefix(prefix)
            return known.get(name.replace(".processor.", ".").replace(".", "_")), side
    return None, ""


def _pair(found: Mapping[str, Tensor], sides: Mapping[str, str], path: Path) -> tuple[Tensor, Tensor]:
    """(up, down), the file's scale in up."""
    if not {"up", "down"} <= sides.keys():
        raise ModelError(f"{path}: {', '.join(sides.values())} stands alone, a pair of up and down is needed")
    up, down = found[sides["up"]].float(), found[sides["down"]].float()
    if "alpha" in sides:
        up = up * (float(found[sides["alpha"]]) / down.shape[0])
    return up, down


def _check(pairs: Mapping[str, tuple[Tensor, Tensor]], own: Mapping[str, nn.Module], path: Path) -> None:
    ranks = sorted({down.shape[0] for _, down in pairs.values()})
    if len(ranks) > 1:
        raise ModelError(f"{path} has ranks {', '.join(map(str, ranks))}; one rank for all layers is read")
    for name, (up, down) in pairs.items():
        layer = own[name]
        assert isinstance(layer, nn.Linear | nn.Conv2d)  # as `layers` lists no others
        shapes = pair_shapes(layer, ranks[0])
        if (tuple(up.shape), tuple(down.shape)) != shapes:
            raise ModelError(
                f"{path} does not fit '{name}': up and down are {tuple(up.shape)} and {tuple(down.shape)}, "
                f"they have to be {shapes[0]} and {shapes[1]}"
            )
