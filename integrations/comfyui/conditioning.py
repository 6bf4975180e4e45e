"""Makes ComfyUI's CONDITIONING: a list of [tensor (1, token, width), dictionary], here of one entry.

    connector runs once           tensor = the conditioning's tokens           pooled_output, attention_mask
    connector runs at each step   tensor = the language model's features,      pooled_output
                                  packed (`lavibridge.interop.packing`)

For the second kind, *Apply bridge* runs the connector at each step. The pooled vector is zeros, which it
replaces as well, unless it is the language model's own.
"""

from typing import Any

import torch

from lavibridge.generation.prompt_encoder import PromptEncoder
from lavibridge.interop.packing import pack_features


@torch.no_grad()
def encode_prompt(bridge: PromptEncoder, text: str, negative: bool) -> list[list[Any]]:
    """Encode one prompt. The tensors are on the CPU, and no token is padding."""
    encoded = bridge.encode(text, negative)
    extra: dict[str, Any] = {}
    guidance = bridge.saved.vision.get("embedded_guidance_scale")
    if guidance is not None:
        extra["guidance"] = float(guidance)
    if bridge.runs_at_each_step:
        width, pooled = bridge.denoiser.pooled, encoded.features.pooled
        if width is not None:
            if pooled is None or bridge.connector.pool is not None:
                pooled = torch.zeros(1, width)
            extra["pooled_output"] = pooled.cpu()
        return [[pack_features(encoded.features).cpu(), extra]]
    made = encoded.condition(bridge.connector, torch.zeros(1, device=bridge.device))
    if made.pooled is not None:
        extra["pooled_output"] = made.pooled.cpu()
    if bridge.denoiser.takes_mask:
        extra["attention_mask"] = made.mask.long().cpu()
    return [[made.tokens.cpu(), extra]]
