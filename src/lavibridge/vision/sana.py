"""SANA: a flow transformer with linear self-attention; its autoencoder reduces each side by 32.

    latent = (autoencoder's latent) * scale        deterministic: the standard deviation is 0

Xie et al. 2024, arXiv 2410.10629; the autoencoder: Chen et al. 2024, arXiv 2410.10733. The scale of its
tokens is MetaQuery's (Pan et al. 2025, arXiv 2504.06256). LoRA and its learning rate as in the training
scripts of Diffusers.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.attention_processor import mask_with_blocks


class Sana(DiffusersModel):
    """SanaTransformer2DModel with an AutoencoderDC."""

    pipeline_class = "SanaPipeline"
    text = PipelineTextEncoders(
        sequence=((TextEncoder(has_sequence_length=True, padding="masked"),),), normalizes=True
    )
    denoiser_folder = "transformer"
    denoiser_class = "SanaTransformer2DModel"
    context_field = "caption_channels"
    class_names = ("SanaTransformer2DModel",)
    autoencoder_class = "AutoencoderDC"
    default_guidance_scale = 4.5
    rms = 5.5**0.5
    lora_targets = ("to_q", "to_k", "to_v")
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    per_block_layers = ("attn2",)
    block_argument = None
    toy_autoencoder = {  # noqa: RUF012 - a constant of the class
        "latent_channels": 8,
        "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": (16, 32, 32),
        "decoder_block_out_channels": (16, 32, 32),
        "encoder_layers_per_block": (1, 1, 1),
        "decoder_layers_per_block": (1, 1, 1),
        "encoder_qkv_multiscales": ((), (), ()),
        "decoder_qkv_multiscales": ((), (), ()),
        "scaling_factor": 0.4,
    }
    toy_scheduler = {  # noqa: RUF012 - a constant of the class
        "_class_name": "DPMSolverMultistepScheduler",
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    }
    toy = {  # noqa: RUF012 - a constant of the class
        "sample_size": 8,
        "in_channels": 8,
        "out_channels": 8,
        "num_layers": 2,
        "num_attention_heads": 4,
        "attention_head_dim": 8,
        "num_cross_attention_heads": 2,
        "cross_attention_head_dim": 16,
        "cross_attention_dim": 32,
        "caption_channels": 48,
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        mask = mask_with_blocks(conditioning, noisy.dtype)
        return self.backbone(
            noisy,
            encoder_hidden_states=conditioning.tokens,
            timestep=t * self.backbone.config.timestep_scale,
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]

    def _encoded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        latents = self.autoencoder.encode(images, return_dict=False)[0]
        return latents, torch.zeros_like(latents)

    def _context(self, tokens: Float[Tensor, "batch token context"]) -> Float[Tensor, "batch token _"]:
        return self.backbone.caption_norm(self.backbone.caption_projection(tokens))

    def _depth(self) -> int:
        return len(self.autoencoder.config.encoder_block_out_channels)

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        super()._check(denoiser, autoencoder)
        if denoiser.get("guidance_embeds", False):
            raise ModelError(
                f"'{self.config.source}' is a few-step distilled SANA (guidance_embeds), which this family "
                "does not support: choose the SANA model that it was distilled from"
            )
