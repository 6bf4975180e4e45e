"""Hunyuan-DiT: a diffusion transformer that reads two encoders' tokens in sequences of fixed length.

    [77 tokens of BERT | 256 tokens of mT5 through a projection]       learned vectors in the place of padding
    pooled = attention over all 256 tokens of mT5                      padding included

A bridge's tokens take the places of mT5's, and BERT's places hold the learned vectors. Published images also
depend on mT5's features of padding, which a bridge has none of: they are zeros. Cross-attention turns the
patches' queries by their positions, so no layer stands alone.

Li et al. 2024, arXiv 2405.08748. LoRA and its learning rate as in Tencent's training script: the linear
layers of attention.
"""

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.published import SDXL_AUTOENCODER, PublishedModel
from lavibridge.vision.parts.rotary import patch_rotary
from lavibridge.vision.parts.toys import TOY_AUTOENCODER, TOY_DIFFUSION

_BASE_LATENT = 64
"""Side of the latents, by which positions are scaled: images of 512 pixels."""


class HunyuanDiT(DiffusersModel):
    """HunyuanDiT2DModel. Its own text encoders are not described."""

    denoiser_folder = "transformer"
    denoiser_class = "HunyuanDiT2DModel"
    context_field = "cross_attention_dim_t5"
    class_names = ("HunyuanDiT2DModel",)
    default_guidance_scale = 5.0
    joint_attention = True
    block_lists = "blocks"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = {  # noqa: RUF012
        **TOY_AUTOENCODER,
        "block_out_channels": (16, 32, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    toy_scheduler = {**TOY_DIFFUSION, "prediction_type": "v_prediction"}  # noqa: RUF012
    toy = {  # noqa: RUF012
        "sample_size": 4,
        "in_channels": 4,
        "patch_size": 2,
        "num_layers": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "hidden_size": 32,
        "cross_attention_dim": 24,
        "cross_attention_dim_t5": 48,
        "pooled_projection_dim": 16,
        "text_len": 8,
    }
    published = {  # noqa: RUF012
        "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers": PublishedModel(
            pipeline="HunyuanDiTPipeline",
            denoiser={
                "sample_size": 128,
                "in_channels": 4,
                "patch_size": 2,
                "num_layers": 40,
                "hidden_size": 1408,
                "mlp_ratio": 4.3637,
                "use_style_cond_and_image_meta_size": False,
            },
            autoencoder=SDXL_AUTOENCODER,
            scheduler={
                "_class_name": "DDPMScheduler",
                "beta_start": 0.00085,
                "beta_end": 0.018,
                "beta_schedule": "scaled_linear",
                "prediction_type": "v_prediction",
            },
        )
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        settings = self.backbone.config
        tokens, mask = self._filled(conditioning)
        absent = tokens.new_zeros(len(noisy), settings.text_len, settings.cross_attention_dim)
        rows, columns = noisy.shape[2] // self.patch, noisy.shape[3] // self.patch
        height, width = noisy.shape[2] * self.factor, noisy.shape[3] * self.factor
        output = self.backbone(
            noisy,
            t.to(noisy.dtype),
            encoder_hidden_states=absent,
            text_embedding_mask=torch.zeros_like(absent[..., 0], dtype=torch.bool),
            encoder_hidden_states_t5=tokens,
            text_embedding_mask_t5=mask,
            image_meta_size=noisy.new_tensor([[height, width, height, width, 0, 0]]).repeat(len(noisy), 1),
            style=torch.zeros(len(noisy), dtype=torch.long, device=noisy.device),
            image_rotary_emb=patch_rotary(
                settings.attention_head_dim, (rows, columns), _BASE_LATENT // self.patch, noisy.device
            ),
            return_dict=False,
        )[0]
        return output[:, : noisy.shape[1]]

    def _filled(
        self, conditioning: Conditioning
    ) -> tuple[Float[Tensor, "batch place context"], Bool[Tensor, "batch place"]]:
        """Return the real tokens at the first of mT5's places, zeros at the others, and which are real."""
        places = int(self.backbone.config.text_len_t5)
        mask, order = conditioning.mask.long().sort(dim=1, descending=True, stable=True)
        if mask.shape[1] > places and bool(mask[:, places:].any()):
            raise ModelError(
                f"'{self.config.source}' takes {places} tokens, found {int(mask.sum(1).max())}: lower "
                "language.max_tokens or the connector's number of tokens"
            )
        tokens = conditioning.tokens.take_along_dim(order[..., None], dim=1) * mask[..., None]
        missing = max(0, places - mask.shape[1])
        filled = functional.pad(tokens[:, :places], (0, 0, 0, missing))
        return filled, functional.pad(mask[:, :places], (0, missing)).bool()
