"""PRX: a flow transformer whose image tokens attend to text and image; the text is not updated.

Photoroom 2025, without a paper (huggingface.co/Photoroom). LoRA on the linear layers of attention; no
training script publishes other targets.
"""

from typing import Any

from jaxtyping import Float, Num
from torch import Tensor, nn

from lavibridge.core.contracts import Conditioning
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.padding import padding_mask
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_SIZE, TOY_WIDE_AUTOENCODER


class PRX(DiffusersModel):
    """PRXTransformer2DModel with an AutoencoderKL. Its own text encoder is not described."""

    denoiser_folder = "transformer"
    denoiser_class = "PRXTransformer2DModel"
    context_field = "context_in_dim"
    class_names = ("PRXTransformer2DModel",)
    default_guidance_scale = 4.0
    joint_attention = True
    block_lists = "blocks"
    lora_targets = ("attention.img_qkv_proj", "attention.txt_kv_proj", "attention.to_out.0")
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = TOY_FLOW
    toy = {  # noqa: RUF012 - a constant of the class
        "context_in_dim": 48,
        "hidden_size": 32,
        "num_heads": 2,
        "depth": 2,
        "axes_dim": [8, 8],
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        return self.backbone(
            noisy,
            timestep=t / self.scheduler.config.num_train_timesteps,
            encoder_hidden_states=conditioning.tokens,
            attention_mask=padding_mask(conditioning.mask),
            return_dict=False,
        )[0]

    def _finish_toy(self, denoiser: Any) -> None:
        for block in denoiser.blocks:
            nn.init.normal_(block.modulation.lin.weight)

    def _default_size(self) -> int:
        described = None if self.files is None else self.files.read_json("model_index.json")
        return int((described or {}).get("default_sample_size") or TOY_SIZE)
