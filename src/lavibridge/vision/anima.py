"""Anima: the denoiser of Cosmos-Predict2 for illustrations, over the latents of Qwen-Image.

Its text side is a language model and a trained connector, the `AnimaTextConditioner` of Diffusers, whose
queries are token embeddings of T5. It is not described: a bridge takes its place.

CircleStone Labs and Comfy Org 2026, without a paper (huggingface.co/circlestone-labs/Anima). LoRA as for
Cosmos-Predict2, with the learning rate of sd-scripts.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from lavibridge.vision.cosmos import Cosmos
from lavibridge.vision.parts.published import PublishedModel
from lavibridge.vision.parts.toys import TOY_FLOW


class Anima(Cosmos):
    """CosmosTransformer3DModel with an AutoencoderKLQwenImage. Its own text side is not described."""

    text = None
    autoencoder_class = "AutoencoderKLQwenImage"
    default_guidance_scale = 4.0
    pipeline_guidance_offset = 0.0
    step_spacing = "even"
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    toy_scheduler = TOY_FLOW
    toy_pipelines: ClassVar[Mapping[str, Any]] = {}
    published: ClassVar[Mapping[str, PublishedModel]] = {}
