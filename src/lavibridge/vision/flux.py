"""FLUX.1: a flow transformer over packed latents, in which text and image share joint attention.

    latent (channel, h, w) -> patches of 2x2 as tokens (h w / 4, 4 channel), with their row and column

The `dev` model takes the guidance scale as an input and needs no classifier-free guidance.

Black Forest Labs 2024, without a paper. The model takes no mask, so padding is removed. LoRA as in the
training scripts of Diffusers: the linear layers of attention and feed-forward, for image and text.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_WIDE_AUTOENCODER

_CLIP = TextEncoder()
_T5 = TextEncoder(folder="text_encoder_2", tokenizer="tokenizer_2", has_sequence_length=True)


class Flux(DiffusersModel):
    """FluxTransformer2DModel."""

    class Config(DiffusersModel.Config):
        """Which FLUX model."""

        embedded_guidance_scale: float = Field(default=3.5, ge=0)
        """Guidance scale that a guidance-distilled model takes as an input, which needs no second call."""

    config: Config
    text = PipelineTextEncoders(sequence=((_T5,),), pooled=(_CLIP,))
    denoiser_folder = "transformer"
    denoiser_class = "FluxTransformer2DModel"
    class_names = ("FluxTransformer2DModel",)
    default_guidance_scale = 1.0
    joint_attention = True
    honours_mask = False
    lora_targets = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
    )
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = {**TOY_FLOW, "use_dynamic_shifting": True}  # noqa: RUF012 - a constant of the class
    toy = {  # noqa: RUF012 - a constant of the class
        "in_channels": 64,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
        "joint_attention_dim": 48,
        "pooled_projection_dim": 24,
        "guidance_embeds": True,
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        packed = functional.pixel_unshuffle(noisy, self.patch)
        rows, columns = packed.shape[2:]
        guidance = noisy.new_full((len(noisy),), self.config.embedded_guidance_scale)
        output = self.backbone(
            packed.flatten(2).transpose(1, 2),
            encoder_hidden_states=conditioning.tokens,
            pooled_projections=conditioning.pooled,
            timestep=t / self.scheduler.config.num_train_timesteps,
            img_ids=_places(rows, columns, noisy.device),
            txt_ids=torch.zeros(conditioning.tokens.shape[1], 3, device=noisy.device),
            guidance=guidance if self.backbone.config.guidance_embeds else None,
            return_dict=False,
        )[0]
        return functional.pixel_shuffle(output.transpose(1, 2).unflatten(2, (rows, columns)), self.patch)

    def _context_width(self) -> int:
        return int(self.backbone.config.joint_attention_dim)

    def _pooled_width(self) -> int:
        return int(self.backbone.config.pooled_projection_dim)

    def _patch(self) -> int:
        return _packing(self.backbone.config, self.autoencoder.config)

    def _default_size(self) -> int:
        return int(self.autoencoder.config.sample_size)

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        latents, packed = int(autoencoder["latent_channels"]), int(denoiser["in_channels"])
        if _packing(denoiser, autoencoder) ** 2 * latents != packed:
            raise ModelError(
                f"the denoiser of '{self.config.source}' takes {packed} channels, which are no square "
                f"patches of {latents} latent channels: it takes an image as an additional input; choose a "
                "text-to-image model"
            )


def _packing(denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> int:
    """Return the side of the patch of latents behind one token."""
    return isqrt(int(denoiser["in_channels"]) // int(autoencoder["latent_channels"]))


def _places(rows: int, columns: int, device: torch.device) -> Float[Tensor, "patch 3"]:
    """Return (0, row, column) of each patch."""
    places = torch.zeros(rows, columns, 3, device=device)
    places[..., 1] = torch.arange(rows, device=device)[:, None]
    places[..., 2] = torch.arange(columns, device=device)
    return places.flatten(0, 1)
