"""FLUX.2 dev and klein: a flow transformer over packed latents with joint attention of text and image.

    latent (32, h, w) -> patches of 2x2 (128, h / 2, w / 2) -> (latent - mean) / std of a batch norm
    token = [hidden states of three layers of a language model]

`dev` takes the guidance scale as an input and needs no classifier-free guidance; distilled `klein` needs none
either. The logarithm of the timestep shift is linear in the number of patches and in the number of steps.

Black Forest Labs 2025 and 2026, without a paper. Text has positions, so padding is removed. LoRA and its
learning rate as in the training script of Diffusers for klein: the linear layers of attention, which are
fused with feed-forward in the single blocks. The script for dev leaves out the single blocks.
"""

from collections.abc import Mapping
from math import exp
from typing import Any

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import ChatTemplate, PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import Statistic
from lavibridge.vision.parts.packed import PackedModel, patch_places
from lavibridge.vision.parts.published import QWEN3_4B, PublishedModel
from lavibridge.vision.parts.toys import TOY_AUTOENCODER, TOY_FLOW, TOY_TEXT_MODEL

_DEV, _KLEIN = "Flux2Pipeline", "Flux2KleinPipeline"
_SYSTEM = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
_MISTRAL = TextEncoder(
    has_sequence_length=True,
    padding="unattended",
    chat=ChatTemplate(
        system=_SYSTEM, add_generation_prompt=False, has_typed_content=True, add_special_tokens=False
    ),
)
_QWEN = TextEncoder(has_sequence_length=True, padding="unattended", chat=ChatTemplate(enable_thinking=False))
_SIDES = {
    _DEV: PipelineTextEncoders(sequence=((_MISTRAL,),)),
    _KLEIN: PipelineTextEncoders(sequence=((_QWEN,),)),
}
_TOY_TEXT = {**TOY_TEXT_MODEL, "hidden_size": 16, "num_hidden_layers": 31}
_STEPS = 50
"""The default of its pipeline."""
_LOG_SHIFTS = ((1.89833333, 8.73809524e-05), (0.45666666, 0.00016927))
"""Intercept and slope of the logarithm of the shift over the number of patches, at 10 and at 200 steps."""
_MANY_PATCHES = 4300
"""Above this number of patches the shift is that of 200 steps."""
_PATCH = 2


class Flux2(PackedModel):
    """Flux2Transformer2DModel with an AutoencoderKLFlux2."""

    class Config(PackedModel.Config):
        """Which FLUX.2 model."""

        embedded_guidance_scale: float = Field(default=4.0, ge=0)
        """Guidance scale that a guidance-distilled model takes as an input, which needs no second call."""

    config: Config
    text = _SIDES[_DEV]
    denoiser_folder = "transformer"
    denoiser_class = "Flux2Transformer2DModel"
    class_names = ("Flux2Transformer2DModel",)
    autoencoder_class = "AutoencoderKLFlux2"
    default_guidance_scale = 4.0
    step_spacing = "even"
    joint_attention = True
    honours_mask = False
    lora_targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj")
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = {  # noqa: RUF012
        **{name: value for name, value in TOY_AUTOENCODER.items() if name != "scaling_factor"},
        "latent_channels": 4,
    }
    toy_scheduler = {**TOY_FLOW, "use_dynamic_shifting": True}  # noqa: RUF012
    toy = {  # noqa: RUF012
        "in_channels": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 48,
        "timestep_guidance_channels": 16,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": False,
    }
    toy_pipelines = {  # noqa: RUF012
        _DEV: {
            "transformer": {"guidance_embeds": True},
            "text_encoder": {
                "_class_name": "Mistral3ForConditionalGeneration",
                "text_config": {"model_type": "mistral", **_TOY_TEXT},
                "vision_config": {
                    "model_type": "pixtral",
                    "hidden_size": 16,
                    "intermediate_size": 16,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                },
            },
        },
        _KLEIN: {"text_encoder": {"_class_name": "Qwen3ForCausalLM", **_TOY_TEXT}},
    }
    published = {  # noqa: RUF012
        "black-forest-labs/FLUX.2-dev": PublishedModel(
            pipeline=_DEV,
            scheduler=toy_scheduler,
            text_encoders={
                "text_encoder": {
                    "_class_name": "Mistral3ForConditionalGeneration",
                    "text_config": {
                        "model_type": "mistral",
                        "hidden_size": 5120,
                        "intermediate_size": 32768,
                        "num_hidden_layers": 40,
                        "num_attention_heads": 32,
                        "num_key_value_heads": 8,
                        "head_dim": 128,
                        "vocab_size": 131_072,
                    },
                }
            },
            parameters={"transformer": 32_223_281_152},
        ),
        "black-forest-labs/FLUX.2-klein-base-4B": PublishedModel(
            pipeline=_KLEIN,
            denoiser={
                "num_layers": 5,
                "num_single_layers": 20,
                "num_attention_heads": 24,
                "joint_attention_dim": 7680,
                "guidance_embeds": False,
            },
            scheduler=toy_scheduler,
            text_encoders={"text_encoder": {"_class_name": "Qwen3ForCausalLM", **QWEN3_4B}},
            parameters={"transformer": 3_875_544_576, "text_encoder": 4_022_468_096},
        ),
    }

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__(config, device)
        described = {} if self.files is None else self.files.read_json("model_index.json") or {}
        self.text = _SIDES.get(described.get("_class_name", _DEV), _SIDES[_DEV])
        if self.backbone.config.guidance_embeds or described.get("is_distilled", False):
            self.default_guidance_scale = 1.0
        blocks = range(len(self.backbone.single_transformer_blocks))
        single = tuple(f"single_transformer_blocks.{index}.attn.to_out" for index in blocks)
        self.lora_targets = (*type(self).lora_targets, *single)

    def flow_shift(self, shape: tuple[int, int, int], steps: int | None = None) -> float:
        """Return the shift for latents of ``shape`` in ``steps``."""
        patches = shape[1] * shape[2]
        few, many = (intercept + slope * patches for intercept, slope in _LOG_SHIFTS)
        if patches > _MANY_PATCHES:
            return exp(many)
        return exp(few + (many - few) * ((_STEPS if steps is None else steps) - 10) / 190)

    def _call_packed(
        self,
        packed: Float[Tensor, "batch patch channel"],
        size: tuple[int, int],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch patch channel"]:
        guidance = packed.new_full((len(packed),), self.config.embedded_guidance_scale)
        text = torch.zeros(conditioning.tokens.shape[1], 4, device=packed.device)
        text[:, 3] = torch.arange(len(text), device=packed.device)
        return self.backbone(
            packed,
            encoder_hidden_states=conditioning.tokens,
            timestep=t,
            img_ids=patch_places(size, 4, packed.device),
            txt_ids=text,
            guidance=guidance if self.backbone.config.guidance_embeds else None,
            return_dict=False,
        )[0]

    def _encoded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]:
        mean, std = super()._encoded(images)
        return functional.pixel_unshuffle(mean, _PATCH), functional.pixel_unshuffle(std, _PATCH)

    def _decoded(self, latents: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch 3 height width"]:
        return super()._decoded(functional.pixel_shuffle(latents, _PATCH))

    def _shift_and_scale(self) -> tuple[Statistic, Statistic]:
        norm = self.autoencoder.bn
        std = (norm.running_var + self.autoencoder.config.batch_norm_eps).sqrt()
        return norm.running_mean.view(1, -1, 1, 1), 1 / std.view(1, -1, 1, 1)

    def _depth(self) -> int:
        return super()._depth() + 1  # its patches are part of the latents

    def _channels(self) -> int:
        return super()._channels() * _PATCH**2

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        super()._check(denoiser, {"latent_channels": int(autoencoder["latent_channels"]) * _PATCH**2})
