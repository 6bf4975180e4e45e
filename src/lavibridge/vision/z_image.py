"""Z-Image: a flow transformer in which image and text are one sequence.

    [image tokens | text tokens]     each part is padded to a multiple of 32 with a learned token

Its time runs from noise (0) to image (1), and it predicts the image minus the noise.

Z-Image team 2025, arXiv 2511.22699. The denoiser reads the lengths of its prompts, so padding is removed.
LoRA and its learning rate as in the training script of Diffusers: the linear layers of attention.
"""

from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import ChatTemplate, PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.published import QWEN3_4B, WIDE_AUTOENCODER, PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_QWEN3, TOY_WIDE_AUTOENCODER

_QWEN = TextEncoder(
    layers=(-2,), has_sequence_length=True, padding="masked", chat=ChatTemplate(enable_thinking=True)
)


class ZImage(DiffusersModel):
    """ZImageTransformer2DModel.

    The guidance scale is its pipeline's plus one. The distilled Turbo has the same configuration and needs no
    guidance: set `guidance_scale` to 1.
    """

    text = PipelineTextEncoders(sequence=((_QWEN,),))
    denoiser_folder = "transformer"
    denoiser_class = "ZImageTransformer2DModel"
    context_field = "cap_feat_dim"
    class_names = ("ZImageTransformer2DModel",)
    default_guidance_scale = 6.0
    pipeline_guidance_offset = 1.0
    step_spacing = "even"
    joint_attention = True
    honours_mask = False
    block_lists = "layers"
    is_image_first = True
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = TOY_FLOW
    toy = {  # noqa: RUF012
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "cap_feat_dim": 48,
        "axes_dims": (4, 6, 6),
        "axes_lens": (1024, 64, 64),
    }
    toy_pipelines = {"ZImagePipeline": {"text_encoder": TOY_QWEN3}}  # noqa: RUF012
    published = {  # noqa: RUF012
        "Tongyi-MAI/Z-Image": PublishedModel(
            pipeline="ZImagePipeline",
            denoiser={"axes_lens": (1536, 512, 512)},
            autoencoder=WIDE_AUTOENCODER,
            scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 6.0},
            text_encoders={"text_encoder": {"_class_name": "Qwen3Model", **QWEN3_4B}},
            parameters={"transformer": 6_154_908_736, "text_encoder": 4_022_468_096},
        )
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        times = self.scheduler.config.num_train_timesteps
        output = self.backbone(
            list(noisy[:, :, None]), (times - t) / times, list(conditioning.tokens), return_dict=False
        )[0]
        return -torch.stack(output)[:, :, 0]

    def _patch(self) -> int:
        return int(self.backbone.config.all_patch_size[0])

    def _default_size(self) -> int:
        return int(self.autoencoder.config.sample_size)

    def _finish_toy(self, denoiser: Any) -> None:
        for token in (denoiser.x_pad_token, denoiser.cap_pad_token):
            nn.init.zeros_(token)
