"""AuraFlow: a flow transformer in which text and image share joint attention.

Its tokens are as many as the prompt may have at most, and those of the padding are zeros.

Fal 2024, without a paper (huggingface.co/fal/AuraFlow). It takes no mask, so a bridge's padding is removed.
LoRA as in SimpleTuner: the linear layers of attention, for image and text.
"""

from typing import Any

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.published import SDXL_AUTOENCODER, PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_T5

_SHIFT = {**TOY_FLOW, "shift": 1.73}


class AuraFlow(DiffusersModel):
    """AuraFlowTransformer2DModel."""

    text = PipelineTextEncoders(sequence=((TextEncoder(has_sequence_length=True, padding="zeros"),),))
    denoiser_folder = "transformer"
    denoiser_class = "AuraFlowTransformer2DModel"
    context_field = "joint_attention_dim"
    class_names = ("AuraFlowTransformer2DModel",)
    default_guidance_scale = 3.5
    joint_attention = True
    honours_mask = False
    lora_targets = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )
    toy_scheduler = _SHIFT
    toy = {  # noqa: RUF012 - a constant of the class
        "sample_size": 8,
        "num_mmdit_layers": 1,
        "num_single_dit_layers": 1,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 48,
        "caption_projection_dim": 32,
        "pos_embed_max_size": 64,
    }
    toy_pipelines = {  # noqa: RUF012
        "AuraFlowPipeline": {"text_encoder": {**TOY_T5, "_class_name": "UMT5EncoderModel"}}
    }
    published = {  # noqa: RUF012
        "fal/AuraFlow-v0.3": PublishedModel(
            pipeline="AuraFlowPipeline",
            denoiser={"pos_embed_max_size": 9216},
            autoencoder=SDXL_AUTOENCODER,
            scheduler=_SHIFT,
            text_encoders={
                "text_encoder": {
                    "_class_name": "UMT5EncoderModel",
                    "d_model": 2048,
                    "d_kv": 64,
                    "d_ff": 5120,
                    "num_layers": 24,
                    "num_heads": 32,
                    "vocab_size": 32128,
                    "feed_forward_proj": "gated-gelu",
                }
            },
        )
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        return self.backbone(
            noisy,
            encoder_hidden_states=conditioning.tokens,
            timestep=(t / self.scheduler.config.num_train_timesteps).to(noisy.dtype),
            return_dict=False,
        )[0]

    def _finish_toy(self, denoiser: Any) -> None:
        denoiser.time_step_proj.linear_2.weight.mul_(30)
