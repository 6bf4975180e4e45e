"""Chroma: FLUX.1 without a pooled vector and with modulations from a small network.

Rock 2025, without a paper (huggingface.co/lodestones/Chroma). Text has no positions and the model was trained
with a mask, so removed padding changes nothing. It reads the first padding token after a prompt. LoRA as in
the training scripts of Diffusers for FLUX.1: the linear layers of attention and feed-forward. Its learning
rate is SimpleTuner's.
"""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.flux import Flux
from lavibridge.vision.parts.packed import PackedModel, patch_places
from lavibridge.vision.parts.published import T5_XXL, WIDE_AUTOENCODER, PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW, TOY_T5, TOY_WIDE_AUTOENCODER

_T5 = TextEncoder(has_sequence_length=True, padding="masked", read_padding=1)
_SCHEDULER = {**TOY_FLOW, "shift": 1.0}


class Chroma(PackedModel):
    """ChromaTransformer2DModel."""

    text = PipelineTextEncoders(sequence=((_T5,),))
    denoiser_folder = "transformer"
    denoiser_class = "ChromaTransformer2DModel"
    class_names = ("ChromaTransformer2DModel",)
    default_guidance_scale = 5.0
    step_spacing = "even"
    joint_attention = True
    honours_mask = False
    lora_targets = Flux.lora_targets
    published_lr = {"vision_lora": 2e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = TOY_WIDE_AUTOENCODER
    toy_scheduler = _SCHEDULER
    toy = {  # noqa: RUF012
        "in_channels": 64,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "axes_dims_rope": (4, 6, 6),
        "joint_attention_dim": 48,
        "approximator_num_channels": 8,
        "approximator_hidden_dim": 16,
        "approximator_layers": 1,
    }
    toy_pipelines = {"ChromaPipeline": {"text_encoder": TOY_T5}}  # noqa: RUF012
    published = {  # noqa: RUF012
        "lodestones/Chroma1-HD": PublishedModel(
            pipeline="ChromaPipeline",
            autoencoder=WIDE_AUTOENCODER,
            scheduler=_SCHEDULER,
            text_encoders={"text_encoder": {"_class_name": "T5EncoderModel", **T5_XXL}},
            parameters={"transformer": 8_899_983_424, "text_encoder": 4_762_310_656},
        )
    }

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
            img_ids=patch_places(size, 3, packed.device),
            txt_ids=torch.zeros(conditioning.tokens.shape[1], 3, device=packed.device),
            return_dict=False,
        )[0]
