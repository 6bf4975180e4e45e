"""Stable Diffusion 3 and 3.5: a flow transformer in which text and image share joint attention.

Esser et al. 2024, arXiv 2403.03206. It takes no mask, so padding is removed. LoRA and its learning rate as in
the training scripts of Diffusers: the linear layers of attention, for image and text. The text queries of the
last block get none, because the model discards their output.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_WIDE_AUTOENCODER

_CLIP_L = TextEncoder(layers=(-2,))
_CLIP_G = TextEncoder(folder="text_encoder_2", tokenizer="tokenizer_2", layers=(-2,))
_T5 = TextEncoder(folder="text_encoder_3", tokenizer="tokenizer_3", has_sequence_length=True)


class StableDiffusion3(DiffusersModel):
    """SD3Transformer2DModel."""

    pipeline_class = "StableDiffusion3Pipeline"
    text = PipelineTextEncoders(
        sequence=((_CLIP_L, _CLIP_G), (_T5,)), pooled=(_CLIP_L, _CLIP_G), optional=(_T5.folder,)
    )
    denoiser_folder = "transformer"
    denoiser_class = "SD3Transformer2DModel"
    context_field = "joint_attention_dim"
    class_names = ("SD3Transformer2DModel",)
    default_guidance_scale = 7.0
    joint_attention = True
    honours_mask = False
    lora_targets: tuple[str, ...] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
    )
    published_lr = {"vision_lora": 4e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = TOY_FLOW
    toy = {  # noqa: RUF012 - a constant of the class
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "joint_attention_dim": 48,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 24,
        "pos_embed_max_size": 16,
    }

    def __init__(self, config: DiffusersModel.Config, device: torch.device | None = None) -> None:
        super().__init__(config, device)
        blocks = range(len(self.backbone.transformer_blocks) - 1)
        queries = tuple(f"transformer_blocks.{index}.attn.add_q_proj" for index in blocks)
        self.lora_targets = (*type(self).lora_targets, *queries)

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        return self.backbone(
            noisy,
            encoder_hidden_states=conditioning.tokens,
            pooled_projections=conditioning.pooled,
            timestep=t,
            return_dict=False,
        )[0]

    def _pooled_width(self) -> int:
        return int(self.backbone.config.pooled_projection_dim)
