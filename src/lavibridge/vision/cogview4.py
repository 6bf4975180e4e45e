"""CogView4: a flow transformer that also takes the image's sizes; text and image share joint attention.

    model time = u,  sigma = s u / (1 + (s - 1) u),  s = sqrt(patches / 256) max_shift + base_shift

It is told the time before the shift, which depends on the image's size.

Zheng et al. 2024, arXiv 2403.05121 (its forerunner CogView3); Zhipu AI 2025. It takes no mask, so padding is
removed, save what makes a prompt's length a multiple of 16. LoRA and its learning
rate as in CogKit, its makers' training scripts: the linear layers of attention.
"""

from math import exp, sqrt

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.published import WIDE_AUTOENCODER, PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_TEXT_MODEL, TOY_WIDE_AUTOENCODER

_GLM = TextEncoder(
    layers=(-2,), has_sequence_length=True, padding="masked", padding_side="left", padding_multiple=16
)
_DYNAMIC = {
    **TOY_FLOW,
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.25,
    "max_shift": 0.75,
    "time_shift_type": "linear",
}


class CogView4(DiffusersModel):
    """CogView4Transformer2DModel."""

    text = PipelineTextEncoders(sequence=((_GLM,),))
    denoiser_folder = "transformer"
    denoiser_class = "CogView4Transformer2DModel"
    context_field = "text_embed_dim"
    class_names = ("CogView4Transformer2DModel",)
    default_guidance_scale = 5.0
    step_spacing = "whole"
    joint_attention = True
    honours_mask = False
    is_image_first = True
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 2e-5}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = _DYNAMIC
    toy = {  # noqa: RUF012
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "text_embed_dim": 48,
        "time_embed_dim": 16,
        "condition_dim": 8,
        "rope_axes_dim": (16, 16),
    }
    toy_pipelines = {  # noqa: RUF012
        "CogView4Pipeline": {"text_encoder": {"_class_name": "GlmModel", **TOY_TEXT_MODEL}}
    }
    published = {  # noqa: RUF012
        "zai-org/CogView4-6B": PublishedModel(
            pipeline="CogView4Pipeline",
            denoiser={"num_layers": 28, "attention_head_dim": 128, "num_attention_heads": 32},
            autoencoder={
                **WIDE_AUTOENCODER,
                "block_out_channels": (128, 512, 1024, 1024),
                "layers_per_block": 3,
                "mid_block_add_attention": False,
                "scaling_factor": 1.0,
                "shift_factor": 0.0,
            },
            scheduler=_DYNAMIC,
            text_encoders={
                "text_encoder": {
                    "_class_name": "GlmModel",
                    "hidden_size": 4096,
                    "intermediate_size": 13696,
                    "num_hidden_layers": 40,
                    "num_attention_heads": 32,
                    "num_key_value_heads": 2,
                    "head_dim": 128,
                    "vocab_size": 151_552,
                    "attention_bias": True,
                }
            },
            parameters={"transformer": 6_369_118_272, "text_encoder": 8_779_194_368},
        )
    }

    def flow_shift(self, shape: tuple[int, int, int], steps: int | None = None) -> float:
        """Return the shift for latents of ``shape``, which grows with the side of the image."""
        settings = self.scheduler.config
        patches = (shape[1] // self.patch) * (shape[2] // self.patch)
        found = sqrt(patches / settings.base_image_seq_len) * settings.max_shift + settings.base_shift
        return exp(found) if settings.time_shift_type == "exponential" else float(found)

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        channels, rows, columns = noisy.shape[1:]
        times, shift = self.scheduler.config.num_train_timesteps, self.flow_shift((channels, rows, columns))
        sigma = t / times
        size = torch.tensor([[rows * self.factor, columns * self.factor]], device=noisy.device)
        sizes = size.repeat(len(noisy), 1).to(noisy.dtype)
        return self.backbone(
            noisy,
            conditioning.tokens,
            timestep=times * sigma / (shift - (shift - 1) * sigma),
            original_size=sizes,
            target_size=sizes,
            crop_coords=torch.zeros_like(sizes),
            return_dict=False,
        )[0]
