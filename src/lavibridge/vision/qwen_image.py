"""Qwen-Image: a flow transformer over packed latents, in which text and image share joint attention.

    guided patch = guided |conditional| / |guided|        the norm over a patch's channels

Its autoencoder also compresses videos; an image is a video of one frame.

Qwen team 2025, arXiv 2508.02324. Text has positions, so padding is removed. LoRA and its learning rate as in
the training script of Diffusers: the linear layers of attention, for the image.
"""

from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.diffusion.guidance import renormalize
from lavibridge.vision.parts.one_frame import OneFrameModel
from lavibridge.vision.parts.packed import PackedModel
from lavibridge.vision.parts.published import PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_SIZE, TOY_TEXT_MODEL, TOY_VIDEO_AUTOENCODER

_SYSTEM = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:"
)
_TEMPLATE = (
    f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n"
    "<|im_start|>user\n{prompt}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
_QWEN = TextEncoder(has_sequence_length=True, padding="masked", template=_TEMPLATE, removed_tokens=34)
_VISION = {"hidden_size": 32, "depth": 1, "num_heads": 2, "intermediate_size": 32, "out_hidden_size": 48}
_ROTARY = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": (2, 3, 3)}
_TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 128_000,
    "tie_word_embeddings": False,
}
_DYNAMIC = {
    **TOY_FLOW,
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "max_image_seq_len": 8192,
    "max_shift": 0.9,
    "shift_terminal": 0.02,
}


class QwenImage(OneFrameModel, PackedModel):
    """QwenImageTransformer2DModel with an AutoencoderKLQwenImage."""

    text = PipelineTextEncoders(sequence=((_QWEN,),))
    denoiser_folder = "transformer"
    denoiser_class = "QwenImageTransformer2DModel"
    class_names = ("QwenImageTransformer2DModel",)
    autoencoder_class = "AutoencoderKLQwenImage"
    default_guidance_scale = 4.0
    joint_attention = True
    honours_mask = False
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 2e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = TOY_VIDEO_AUTOENCODER
    toy_scheduler = _DYNAMIC
    toy = {  # noqa: RUF012
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 48,
        "axes_dims_rope": (4, 6, 6),
    }
    toy_pipelines = {  # noqa: RUF012
        "QwenImagePipeline": {
            "text_encoder": {
                "_class_name": "Qwen2_5_VLForConditionalGeneration",
                "text_config": {
                    **TOY_TEXT_MODEL,
                    "head_dim": None,
                    "num_attention_heads": 3,
                    "rope_parameters": _ROTARY,
                },
                "vision_config": _VISION,
            }
        }
    }
    published = {  # noqa: RUF012
        "Qwen/Qwen-Image": PublishedModel(
            pipeline="QwenImagePipeline",
            scheduler=_DYNAMIC,
            text_encoders={
                "text_encoder": {
                    "_class_name": "Qwen2_5_VLForConditionalGeneration",
                    "text_config": {
                        **_TEXT,
                        "rope_parameters": {
                            **_ROTARY,
                            "rope_theta": 1_000_000.0,
                            "mrope_section": (16, 24, 24),
                        },
                    },
                }
            },
            parameters={"transformer": 20_430_401_088, "text_encoder": 7_070_619_136},
        )
    }

    def guide(
        self,
        unconditional: Float[Tensor, "batch channel h w"],
        conditional: Float[Tensor, "batch channel h w"],
        scale: float,
    ) -> Float[Tensor, "batch channel h w"]:
        """Return the guided prediction with the norms of the conditional one, patch by patch."""
        guided = functional.pixel_unshuffle(super().guide(unconditional, conditional, scale), self.patch)
        patches = functional.pixel_unshuffle(conditional, self.patch)
        return functional.pixel_shuffle(renormalize(guided, patches, dim=1), self.patch)

    def _call_packed(
        self,
        packed: Float[Tensor, "batch patch channel"],
        size: tuple[int, int],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch patch channel"]:
        return self.backbone(
            packed,
            encoder_hidden_states=conditioning.tokens,
            timestep=t,
            img_shapes=[[(1, *size)]] * len(packed),
            return_dict=False,
        )[0]

    def _default_size(self) -> int:
        return TOY_SIZE if self.files is None else 1024
