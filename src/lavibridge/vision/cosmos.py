"""Cosmos-Predict2: a flow transformer whose image tokens read text by cross-attention.

    x = latents + s noise,   u = s / (1 + s),   (1 - u) x = (1 - u) latents + u noise

Its pipeline writes a flow as EDM does, with s from 80 to 0.002. An additional channel of the input marks
padded pixels; there are none here. The denoiser would resize that mask with torchvision, so the family
appends the channel itself and builds the same weights as a denoiser with one more input channel.

NVIDIA 2025, arXiv 2501.03575 (Cosmos). LoRA on the linear layers of attention and feed-forward.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.diffusion.schedule import StepSpacing
from lavibridge.vision.parts.attention_processor import mask_with_blocks
from lavibridge.vision.parts.loading import ModelFiles
from lavibridge.vision.parts.one_frame import OneFrameModel
from lavibridge.vision.parts.published import PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_SIZE, TOY_T5, TOY_VIDEO_AUTOENCODER

_T5 = TextEncoder(has_sequence_length=True, padding="zeros")
_SCHEDULER = {**TOY_FLOW, "shift": 1.0, "use_karras_sigmas": True}
_T5_11B = {
    "_class_name": "T5EncoderModel",
    "d_model": 1024,
    "d_kv": 128,
    "d_ff": 65536,
    "num_layers": 24,
    "num_heads": 128,
    "vocab_size": 32128,
}
_SIZES = {"rope_scale": (1.0, 4.0, 4.0), "extra_pos_embed_type": None}


class Cosmos(OneFrameModel):
    """CosmosTransformer3DModel with an AutoencoderKLWan."""

    text: PipelineTextEncoders | None = PipelineTextEncoders(sequence=((_T5,),))
    denoiser_folder = "transformer"
    denoiser_class = "CosmosTransformer3DModel"
    context_field = "text_embed_dim"
    class_names = ("CosmosTransformer3DModel",)
    autoencoder_class = "AutoencoderKLWan"
    default_guidance_scale = 8.0
    pipeline_guidance_offset = 1.0
    step_spacing: StepSpacing | None = "karras"
    block_argument = None
    per_block_layers = ("attn2",)
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
    toy_autoencoder = TOY_VIDEO_AUTOENCODER
    toy_scheduler: ClassVar[Mapping[str, Any]] = _SCHEDULER
    toy: ClassVar[Mapping[str, Any]] = {
        **_SIZES,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "text_embed_dim": 48,
        "adaln_lora_dim": 8,
        "max_size": (1, 32, 32),
    }
    toy_pipelines: ClassVar[Mapping[str, Any]] = {"Cosmos2TextToImagePipeline": {"text_encoder": TOY_T5}}
    published: ClassVar[Mapping[str, PublishedModel]] = {
        "nvidia/Cosmos-Predict2-2B-Text2Image": PublishedModel(
            pipeline="Cosmos2TextToImagePipeline",
            denoiser={**_SIZES, "num_attention_heads": 16},
            scheduler=_SCHEDULER,
            text_encoders={"text_encoder": _T5_11B},
        ),
        "nvidia/Cosmos-Predict2-14B-Text2Image": PublishedModel(
            pipeline="Cosmos2TextToImagePipeline",
            denoiser={**_SIZES, "num_attention_heads": 40, "num_layers": 36},
            scheduler=_SCHEDULER,
            text_encoders={"text_encoder": _T5_11B},
        ),
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        mask = mask_with_blocks(conditioning, noisy.dtype)
        unpadded = functional.pad(noisy, (0, 0, 0, 0, 0, 1))
        return self.backbone(
            unpadded[:, :, None],
            timestep=(t / self.scheduler.config.num_train_timesteps).to(noisy.dtype),
            encoder_hidden_states=conditioning.tokens,
            attention_mask=mask,
            return_dict=False,
        )[0][:, :, 0]

    def _layer_mask(self, bias: Float[Tensor, "batch 1 token"]) -> Float[Tensor, "batch *_ token"]:
        return bias[:, None]

    def _patch(self) -> int:
        return int(self.backbone.config.patch_size[1])

    def _default_size(self) -> int:
        return TOY_SIZE if self.files is None else 1024

    def _check(self, denoiser: Mapping[str, Any], autoencoder: Mapping[str, Any]) -> None:
        read = int(denoiser["in_channels"]) - (0 if denoiser.get("concat_padding_mask", True) else 1)
        super()._check({"in_channels": read}, {"latent_channels": autoencoder.get("z_dim")})
        if denoiser.get("use_crossattn_projection", False):
            raise ModelError(
                f"'{self.config.source}' is a Cosmos-Predict2.5, which makes videos: choose a text-to-image "
                "model of Cosmos-Predict2"
            )

    def _toy_models(self, device: torch.device | None) -> tuple[Any, Any]:
        denoiser, autoencoder = super()._toy_models(device)
        return _without_resizing(denoiser), autoencoder

    def _load_models(self, files: ModelFiles) -> tuple[Any, Any]:
        denoiser, autoencoder = super()._load_models(files)
        return _without_resizing(denoiser), autoencoder


def _without_resizing(denoiser: Any) -> Any:
    """Let the denoiser take the mask of padded pixels as one more channel of its input."""
    settings = denoiser.config
    if settings.concat_padding_mask:
        denoiser.register_to_config(in_channels=settings.in_channels + 1, concat_padding_mask=False)
    return denoiser
