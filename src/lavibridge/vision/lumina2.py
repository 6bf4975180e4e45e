"""Lumina-Image 2: a flow transformer in which text and image are one sequence.

    [text tokens | image tokens]
    guided row = guided |conditional| / |guided|        the norm over a row of the latents

Its time runs from noise (0) to image (1), and it predicts the image minus the noise.

Qin et al. 2025, arXiv 2503.21758. The denoiser reads the lengths of its prompts, so padding is removed. LoRA
and its learning rate as in the training script of Diffusers: the linear layers of attention.
"""

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.diffusion.guidance import renormalize
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.published import WIDE_AUTOENCODER, PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_TEXT_MODEL, TOY_WIDE_AUTOENCODER

_SYSTEM = (
    "You are an assistant designed to generate superior images with the superior degree of image-text "
    "alignment based on textual prompts or user prompts."
)
_GEMMA_2B = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 256_000,
}


class Lumina2(DiffusersModel):
    """Lumina2Transformer2DModel."""

    text = PipelineTextEncoders(
        sequence=((TextEncoder(layers=(-2,), has_sequence_length=True, padding="masked"),),),
        instruction=f"{_SYSTEM} <Prompt Start> ",
        keeps_instruction=True,
    )
    denoiser_folder = "transformer"
    denoiser_class = "Lumina2Transformer2DModel"
    context_field = "cap_feat_dim"
    class_names = ("Lumina2Transformer2DModel",)
    default_guidance_scale = 4.0
    step_spacing = "even"
    joint_attention = True
    honours_mask = False
    block_lists = "layers"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = TOY_FLOW
    toy = {  # noqa: RUF012
        "sample_size": 8,
        "hidden_size": 32,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "num_attention_heads": 2,
        "num_kv_heads": 1,
        "multiple_of": 8,
        "axes_dim_rope": (4, 6, 6),
        "axes_lens": (600, 64, 64),
        "cap_feat_dim": 48,
    }
    toy_pipelines = {  # noqa: RUF012
        "Lumina2Pipeline": {"text_encoder": {"_class_name": "Gemma2Model", **TOY_TEXT_MODEL}}
    }
    published = {  # noqa: RUF012
        "Alpha-VLLM/Lumina-Image-2.0": PublishedModel(
            pipeline="Lumina2Pipeline",
            denoiser={
                "hidden_size": 2304,
                "num_layers": 26,
                "num_attention_heads": 24,
                "axes_dim_rope": (32, 32, 32),
                "axes_lens": (300, 512, 512),
                "cap_feat_dim": 2304,
            },
            autoencoder=WIDE_AUTOENCODER,
            scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 6.0},
            text_encoders={"text_encoder": {"_class_name": "Gemma2Model", **_GEMMA_2B}},
            parameters={"transformer": 2_609_769_152, "text_encoder": 2_614_341_888},
        )
    }

    def guide(
        self,
        unconditional: Float[Tensor, "batch channel h w"],
        conditional: Float[Tensor, "batch channel h w"],
        scale: float,
    ) -> Float[Tensor, "batch channel h w"]:
        """Return the guided prediction with the norms of the conditional one, row by row."""
        return renormalize(super().guide(unconditional, conditional, scale), conditional, dim=-1)

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        return -self.backbone(
            noisy,
            timestep=1 - t / self.scheduler.config.num_train_timesteps,
            encoder_hidden_states=conditioning.tokens,
            encoder_attention_mask=conditioning.mask,
            return_dict=False,
        )[0]
