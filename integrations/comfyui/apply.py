"""Prepares ComfyUI's MODEL (a ModelPatcher) for a bridge: LoRA, and the connector at each step.

    comfy/samplers.py, _calc_cond_batch:  wrapper(apply_model, {"input", "timestep", "c", "cond_or_uncond"})
    timestep                              sigma of each row; the connector needs the denoiser's own time
    c["c_crossattn"]                      (row, token, width): what *Encode prompt* packed
    c["y"]                                pooled vector, and for SDXL the sizes behind it
    c["transformer_options"]              patches of the attention, see `block_attention.py`

ComfyUI repeats a shorter conditioning until all rows are equally long (comfy/conds.py, CONDCrossAttn), which
changes nothing for plain cross-attention, but would for a connector. The copies are therefore masked.
"""

import math
from typing import Any

import torch
from torch import Tensor

from lavibridge.core.contracts import Attention, BlockTokens, Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.generation.prompt_encoder import PromptEncoder
from lavibridge.interop.lora_files import comfyui_lora_state, stored_vision_pairs
from lavibridge.interop.packing import packed_columns, unpack_features

from .block_attention import block_places, with_block_attention


def apply_bridge(model: Any, bridge: PromptEncoder, strength: float) -> Any:
    """Return a clone of the model with the bridge's LoRA and, if the connector needs it, its wrapper.

    Raises ModelError if the bridge does not work with ComfyUI's model.
    """
    pairs = stored_vision_pairs(bridge.saved)
    patched = model.clone()
    if pairs and strength != 0:
        import comfy.sd

        state = comfyui_lora_state(pairs, bridge.denoiser.network)
        patched, _ = comfy.sd.load_lora_for_models(patched, None, state, strength, 0.0)
    if bridge.runs_at_each_step:
        before = patched.model_options.get("model_function_wrapper")
        patched.set_model_unet_function_wrapper(ConnectorAtEachStep(bridge, patched.model, before))
    return patched


class ConnectorAtEachStep:
    """A wrapper of the denoiser's call that runs the connector first."""

    def __init__(self, bridge: PromptEncoder, model: Any, before: Any | None) -> None:
        """``model`` is ComfyUI's BaseModel, ``before`` another node's wrapper, which this one calls."""
        self.bridge, self.model, self.before = bridge, model, before
        self.width = packed_columns(bridge.connector.reading, bridge.language.spec)
        self.places = block_places(tuple(bridge.denoiser.blocks)) if bridge.connector.per_block else {}

    @torch.no_grad()
    def __call__(self, apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        """Return the denoiser's output for the rows of a call."""
        c = dict(arguments["c"])
        packed = c["c_crossattn"]
        if packed.shape[-1] != self.width:
            raise ModelError(
                f"Apply bridge: a conditioning of width {packed.shape[-1]} is none of this bridge, whose "
                f"features have width {self.width}: make every prompt, the negative one too, with 'Encode "
                "prompt'"
            )
        made = self._condition(packed, arguments["input"].device, arguments["timestep"])
        c["c_crossattn"] = repeat_real_tokens(made.tokens, made.mask)
        if made.pooled is not None and c.get("y") is not None:
            c["y"] = torch.cat([made.pooled.to(c["y"]), c["y"][:, made.pooled.shape[1] :]], dim=1)
        if made.blocks:
            blocks = {name: _without_padding(each, made.mask) for name, each in made.blocks.items()}
            options = c.get("transformer_options", {})
            c["transformer_options"] = with_block_attention(options, blocks, self.places)
        if self.before is not None:
            return self.before(apply_model, {**arguments, "c": c})
        return apply_model(arguments["input"], arguments["timestep"], **c)

    def to(self, place: Any) -> "ConnectorAtEachStep":
        """Move the connector; ModelPatcher.model_patches_to calls this with a device, and with a dtype."""
        if isinstance(place, torch.device):
            self.bridge.connector.to(place)
        return self

    def _condition(self, packed: Tensor, device: torch.device, sigma: Tensor) -> Conditioning:
        connector = self.bridge.connector.to(device)
        real = mask_repeats(packed.to(device, torch.float32))
        if not bool((real[..., 0] > 0.5).any(dim=1).all()):
            raise ModelError(
                "Apply bridge: a conditioning has no tokens, perhaps after ConditioningZeroOut: encode an "
                "empty prompt instead"
            )
        features = unpack_features(real, connector.reading, self.bridge.language.spec)
        return connector(features, self._time(sigma).to(device))

    def _time(self, sigma: Tensor) -> Tensor:
        """Return the time in the vision model's own unit: steps of a diffusion, or T sigma of a flow."""
        steps = self.bridge.denoiser.flow_steps
        return self.model.model_sampling.timestep(sigma).float() if steps is None else steps * sigma


def _without_padding(block: Attention | BlockTokens, mask: Tensor) -> Attention | BlockTokens:
    if not isinstance(block, BlockTokens):
        return block  # its function knows the mask
    return BlockTokens(tokens=repeat_real_tokens(block.tokens, mask))


def mask_repeats(packed: Tensor) -> Tensor:
    """Mask the copies in rows that repeat a shorter conditioning; columns 0 and 1 are masks."""
    total = packed.shape[1]
    masked = packed.clone()
    for row in masked:
        lengths = (length for length in range(1, total) if total % length == 0)
        for length in lengths:
            if torch.equal(row[length:], row[:-length]):
                row[length:, :2] = 0
                break
    return masked


def repeat_real_tokens(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return rows of equal length without padding: each repeats its real tokens, as ComfyUI does."""
    if bool(mask.all()):
        return tokens
    rows = [row[real] for row, real in zip(tokens, mask, strict=True)]
    total = math.lcm(*(len(row) for row in rows))
    return torch.stack([row.repeat(total // len(row), 1) for row in rows])
