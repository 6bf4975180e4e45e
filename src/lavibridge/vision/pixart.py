"""PixArt-alpha and -Sigma: diffusion transformers with a caption projection of their own.

Chen et al. 2023, arXiv 2310.00426; Chen et al. 2024, arXiv 2403.04692. They also predict a
variance in the second half of the channels, which is dropped. LoRA as in LaVi-Bridge: the linear layers of
attention (224 layers), without the feed-forward layers.
"""

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.padding import padding_mask


class PixArt(DiffusersModel):
    """PixArtTransformer2DModel; older folders call the class Transformer2DModel."""

    pipeline_class = "PixArtAlphaPipeline"
    text = PipelineTextEncoders(
        sequence=((TextEncoder(has_sequence_length=True, padding="masked"),),), normalizes=True
    )
    denoiser_folder = "transformer"
    denoiser_class = "PixArtTransformer2DModel"
    context_field = "caption_channels"
    class_names = ("PixArtTransformer2DModel", "Transformer2DModel")
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    default_guidance_scale = 4.5
    published_lr = {"language_lora": 5e-6, "connector": 2e-5, "vision_lora": 2e-5}  # noqa: RUF012
    toy = {  # noqa: RUF012 - a constant of the class
        "sample_size": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": 48,
        "in_channels": 4,
        "out_channels": 8,
        "patch_size": 2,
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        output = self.backbone(
            noisy,
            encoder_hidden_states=conditioning.tokens,
            timestep=t,
            added_cond_kwargs=self._size_conditions(noisy),
            encoder_attention_mask=padding_mask(conditioning.mask),
            return_dict=False,
            **self._block_arguments(conditioning),
        )[0]
        return output[:, : noisy.shape[1]]

    def _size_conditions(self, noisy: Float[Tensor, "batch channel h w"]) -> dict[str, Any]:
        """Return image size and aspect ratio, inputs of PixArt-alpha's 1024-pixel models."""
        if not self.backbone.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = noisy.shape[2] * self.factor, noisy.shape[3] * self.factor
        size = torch.tensor([[float(height), float(width)]]).repeat(len(noisy), 1)
        return {"resolution": size.to(noisy), "aspect_ratio": (size[:, :1] / size[:, 1:]).to(noisy)}

    def _context(self, tokens: Float[Tensor, "batch token context"]) -> Float[Tensor, "batch token _"]:
        return self.backbone.caption_projection(tokens)
