"""Writes a denoiser's LoRA as one safetensors file with other tools' names.

    kohya     lora_unet_down_blocks_0_attentions_0_..._to_q   .lora_down.weight  .lora_up.weight  .alpha
    comfyui   the same for U-Nets, else transformer.transformer_blocks.0.attn1.to_q   .lora_A.weight ...

y = W x + (alpha / rank) up(down(x)); our scale is 1, so alpha is the rank. If a layer has the bridge's LoRA
and LoRA from files, the exporter writes one pair, whose rank is the sum of theirs. Tools use Diffusers' names
for a U-Net's layers, with underscores for dots. Convolutions are included: down has the kernel, up is 1 x 1.

ComfyUI finds a layer by the keys of `model_lora_keys_unet` in its comfy/lora.py; the tests derive these keys
by the same rules for the published sizes of each model (tests/support/comfyui_lora_keys.py). kohya's scripts
support only U-Nets.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.core.errors import ModelError
from lavibridge.core.low_rank import LowRankPairs
from lavibridge.core.tensors import save_tensors
from lavibridge.core.weight_changes import FoldedLora

LORA_FILE = "vision_lora.safetensors"
_KOHYA_SIDES = (".lora_up.weight", ".lora_down.weight")
_PEFT_SIDES = (".lora_B.weight", ".lora_A.weight")
"""Suffixes of up and down."""
_UNET = "UNet2DConditionModel"
_COMFYUI_TRANSFORMERS = ("FluxTransformer2DModel", "PixArtTransformer2DModel", "SD3Transformer2DModel")
"""Transformers whose layers have Diffusers' names in ComfyUI."""


def write_kohya_lora(bridge: Bridge, folder: Path) -> None:
    """Write the vision LoRA of a U-Net with kohya's names. Raises ModelError for other denoisers."""
    pairs = _vision_pairs(bridge)
    if _network(bridge) != _UNET:
        raise ModelError(
            f"'{bridge.vision.config.source}' has no U-Net, and kohya's format supports only U-Nets: export "
            "to comfyui, peft or diffusers"
        )
    _write(folder, kohya_lora_state(pairs), pairs)


def write_comfyui_lora(bridge: Bridge, folder: Path) -> None:
    """Write the vision LoRA with ComfyUI's names. Raises ModelError for denoisers it does not support."""
    pairs = _vision_pairs(bridge)
    _write(folder, comfyui_lora_state(pairs, _network(bridge)), pairs)


def kohya_lora_state(pairs: LowRankPairs) -> dict[str, Tensor]:
    """Return (up, down) and alpha of a U-Net's layers by kohya's names."""
    return _named({f"lora_unet_{name.replace('.', '_')}": pair for name, pair in pairs.items()}, _KOHYA_SIDES)


def comfyui_lora_state(pairs: LowRankPairs, network: str) -> dict[str, Tensor]:
    """Return (up, down) and alpha of layers by ComfyUI's names; ``network`` is the denoiser's class.

    Raises ModelError for a denoiser that it does not support.
    """
    if network == _UNET:
        return kohya_lora_state(pairs)
    if network not in _COMFYUI_TRANSFORMERS:
        raise ModelError(f"ComfyUI has no names for the layers of a {network}: export to peft or diffusers")
    return _named({f"transformer.{name}": pair for name, pair in pairs.items()}, _PEFT_SIDES)


def stored_vision_pairs(stored: SavedBridge) -> dict[str, tuple[Tensor, Tensor]]:
    """Return (up, down) of the denoiser's layers in a saved bridge, with LoRA files; empty without LoRA.

    Raises ModelError for a LoRA file of another method.
    """
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    if stored.vision_lora is not None:
        pairs = lora.lora_pairs_of_state(stored.tensors("vision_lora"))
    for folded in stored.folded_in("vision"):
        pairs = _joined(pairs, _plain_pairs(folded))
    return pairs


def _network(bridge: Bridge) -> str:
    return type(bridge.vision.backbone).__name__


def _vision_pairs(bridge: Bridge) -> dict[str, tuple[Tensor, Tensor]]:
    """The (up, down) of each layer, with the bridge's LoRA and folded LoRA concatenated along the rank."""
    pairs = lora.lora_pairs(bridge.vision.backbone)
    for folded in bridge.vision.folded:
        pairs = _joined(pairs, _plain_pairs(folded))
    if not pairs:
        raise ModelError(
            "the bridge has no vision LoRA, so this format has nothing to hold: use the original vision model"
        )
    return pairs


def _plain_pairs(folded: FoldedLora) -> LowRankPairs:
    """Return the (up, down) of a LoRA file at its strength. Raises ModelError unless it is plain LoRA."""
    if not folded.is_plain:
        raise ModelError(
            f"the frozen denoiser contains {folded.name}, which is not plain LoRA, so this format cannot "
            "hold it: export to diffusers, or to peft"
        )
    return {name: (up * folded.strength, down) for name, (up, down) in folded.pairs.items()}


def _joined(pairs: LowRankPairs, added: LowRankPairs) -> dict[str, tuple[Tensor, Tensor]]:
    """Add LoRA to LoRA: concatenate the two along the rank."""
    joined = dict(pairs)
    for name, (up, down) in added.items():
        own = pairs.get(name)
        if own is not None:
            up = torch.cat([own[0], up.to(own[0])], dim=1)
            down = torch.cat([own[1], down.to(own[1])], dim=0)
        joined[name] = (up, down)
    return joined


def _named(pairs: LowRankPairs, sides: tuple[str, str]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, (up, down) in pairs.items():
        state |= {name + sides[0]: up, name + sides[1]: down}
        state[f"{name}.alpha"] = torch.tensor(float(up.shape[1]))
    return state


def _write(folder: Path, state: Mapping[str, Tensor], pairs: LowRankPairs) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rank = str(max(up.shape[1] for up, _ in pairs.values()))
    metadata = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    save_tensors(state, folder / LORA_FILE, metadata)
