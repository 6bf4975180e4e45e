"""FLUX.1: a flow transformer over packed latents, in which text and image share joint attention.

The `dev` model takes the guidance scale as an input and needs no classifier-free guidance.

Black Forest Labs 2024, without a paper. The model takes no mask, so padding is removed. LoRA as in the
training scripts of Diffusers: the linear layers of attention and feed-forward, for image and text. The
learning rate is that of Hugging Face's guide to LoRA for FLUX.1 (2025, huggingface.co/blog/flux-qlora).
"""

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.parts.packed import PackedModel, patch_places
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_WIDE_AUTOENCODER

_CLIP = TextEncoder()
_T5 = TextEncoder(folder="text_encoder_2", tokenizer="tokenizer_2", has_sequence_length=True)


class Flux(PackedModel):
    """FluxTransformer2DModel."""

    class Config(PackedModel.Config):
        """Which FLUX model."""

        embedded_guidance_scale: float = Field(default=3.5, ge=0)
        """Guidance scale that a guidance-distilled model takes as an input, which needs no second call."""

    config: Config
    pipeline_class = "FluxPipeline"
    pipeline_time_divisor = 1000.0
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
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
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

    def _call_packed(
        self,
        packed: Float[Tensor, "batch patch channel"],
        size: tuple[int, int],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch patch channel"]:
        guidance = packed.new_full((len(packed),), self.config.embedded_guidance_scale)
        return self.backbone(
            packed,
            encoder_hidden_states=conditioning.tokens,
            pooled_projections=conditioning.pooled,
            timestep=t,
            img_ids=patch_places(size, 3, packed.device),
            txt_ids=torch.zeros(conditioning.tokens.shape[1], 3, device=packed.device),
            guidance=guidance if self.backbone.config.guidance_embeds else None,
            return_dict=False,
        )[0]

    def _pooled_width(self) -> int:
        return int(self.backbone.config.pooled_projection_dim)
