"""CLIP text encoders; of a Stable Diffusion folder its own text_encoder is read.

Radford et al. 2021, arXiv 2103.00020. LoRA on the attention's four linears, as in LaVi-Bridge.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY


class ClipText(TransformersModel):
    """CLIPTextModel: causal, and pooled at the end token."""

    models = {"clip_text_model": "CLIPTextModel", "clip": "CLIPTextModel"}  # noqa: RUF012 - a constant
    lora_targets = ("k_proj", "v_proj", "q_proj", "out_proj")
    limits_positions = True
    learned_positions = True
    takes_queries = False
    toy_template = "<s> $A </s>"
    toy = {**TOY, "hidden_size": 48, "projection_dim": 32}  # noqa: RUF012 - a constant of the class

    def _pooled(self, output: Any) -> Float[Tensor, "batch width"] | None:
        return output.pooler_output.float()

    def _pooled_width(self) -> int | None:
        return int(self.backbone.config.hidden_size)
