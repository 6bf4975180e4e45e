"""Writes a denoiser's LoRA as one safetensors file with other tools' names.

    kohya     lora_unet_down_blocks_0_attentions_0_..._to_q   .lora_down.weight  .lora_up.weight  .alpha
    comfyui   the same for U-Nets, else transformer.transformer_blocks.0.attn1.to_q   .lora_A.weight ...

y = W x + (alpha / rank) up(down(x)); our scale is 1, so alpha is the rank. If a layer has the bridge's LoRA
and LoRA from files, the exporter writes one pair, whose rank is the sum of theirs. Tools use Diffusers' names
for a U-Net's layers, with underscores for dots. Convolutions are included: down has the kernel, up is 1 x 1.

The names match the loaders of ComfyUI and Diffusers; kohya's scripts support only U-Nets.
"""

from pathlib import Path

import diffusers
import torch
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import LowRankPairs
from lavibridge.core.tensors import save_tensors

LORA_FILE = "vision_lora.safetensors"
_KOHYA_SIDES = (".lora_up.weight", ".lora_down.weight")
_PEFT_SIDES = (".lora_B.weight", ".lora_A.weight")
"""Suffixes of up and down."""
_COMFYUI_TRANSFORMERS = ("PixArtTransformer2DModel", "SD3Transformer2DModel")
"""Transformers whose layers have Diffusers' names in ComfyUI."""


def write_kohya_lora(bridge: Bridge, folder: Path) -> None:
    """Write the vision LoRA of a U-Net with kohya's names. Raises ModelError for other denoisers."""
    pairs = _vision_pairs(bridge)
    if not isinstance(bridge.vision.backbone, diffusers.UNet2DConditionModel):
        raise ModelError(
            f"'{bridge.vision.config.source}' has no U-Net, and kohya's format supports only U-Nets: export "
            "to comfyui, peft or diffusers"
        )
    _write(
        folder, {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in pairs.items()}, _KOHYA_SIDES
    )


def write_comfyui_lora(bridge: Bridge, folder: Path) -> None:
    """Write the vision LoRA with ComfyUI's names. Raises ModelError for denoisers it does not support."""
    pairs = _vision_pairs(bridge)
    kind = type(bridge.vision.backbone).__name__
    if isinstance(bridge.vision.backbone, diffusers.UNet2DConditionModel):
        write_kohya_lora(bridge, folder)
    elif kind in _COMFYUI_TRANSFORMERS:
        named = {f"transformer.{name}": pair for name, pair in pairs.items()}
        _write(folder, named, _PEFT_SIDES)
    else:
        raise ModelError(f"ComfyUI has no names for the layers of a {kind}: export to peft or diffusers")


def _vision_pairs(bridge: Bridge) -> dict[str, tuple[Tensor, Tensor]]:
    """The (up, down) of each layer, with the bridge's LoRA and folded LoRA concatenated along the rank."""
    pairs = lora.lora_pairs(bridge.vision.backbone)
    for folded in bridge.vision.folded:
        if not folded.is_plain:
            raise ModelError(
                f"the frozen denoiser contains {folded.name}, which is not plain LoRA, so this format cannot "
                "hold it: export to diffusers, or to peft"
            )
        for name, (up, down) in folded.pairs().items():
            up = up * folded.strength
            own = pairs.get(name)
            if own is not None:
                up = torch.cat([own[0], up.to(own[0])], dim=1)
                down = torch.cat([own[1], down.to(own[1])], dim=0)
            pairs[name] = (up, down)
    if not pairs:
        raise ModelError(
            "the bridge has no vision LoRA, so this format has nothing to hold: use the original vision model"
        )
    return pairs


def _write(folder: Path, pairs: LowRankPairs, sides: tuple[str, str]) -> None:
    state: dict[str, Tensor] = {}
    for name, (up, down) in pairs.items():
        state[name + sides[0]] = up
        state[name + sides[1]] = down
        state[f"{name}.alpha"] = torch.tensor(float(up.shape[1]))
    folder.mkdir(parents=True, exist_ok=True)
    rank = str(max(up.shape[1] for up, _ in pairs.values()))
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    save_tensors(state, folder / LORA_FILE, metadata)
