"""CLIP text encoders; from a Stable Diffusion folder, its text_encoder is loaded.

Radford et al. 2021, arXiv 2103.00020. LoRA on the attention's four linears, as in LaVi-Bridge.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY


class ClipText(TransformersModel):
    """CLIPTextModel: causal; the pooled vector is the output at the tokenizer's first end token."""

    models = {"clip_text_model": "CLIPTextModel", "clip": "CLIPTextModel"}  # noqa: RUF012 - a constant
    lora_targets = ("k_proj", "v_proj", "q_proj", "out_proj")
    learned_positions = True
    takes_queries = False
    is_framed = True
    toy_template = "<s> $A </s>"
    toy = {**TOY, "hidden_size": 48, "projection_dim": 32}  # noqa: RUF012 - a constant of the class

    def _check_tokens(self) -> None:
        super()._check_tokens()
        for module in self.backbone.modules():
            if "eos_token_id" in vars(module):  # the library pools there, and fails without one
                module.eos_token_id = self.tokens.end[0]

    def _pooled(self, output: Any, ids: Int[Tensor, "batch token"]) -> Float[Tensor, "batch width"] | None:
        # The library takes the highest id if the end token is 2, as old configurations say.
        places = (ids == self.tokens.end[0]).int().argmax(dim=1)
        return output.last_hidden_state[torch.arange(len(ids), device=ids.device), places].float()

    def _pooled_width(self) -> int | None:
        return int(self.backbone.config.hidden_size)
