"""Configurations of published models, and folders that hold them without weights.

What a file of the hub states beyond the sizes is left to the defaults of Diffusers and Transformers.

T5 (Raffel et al. 2019, arXiv 1910.10683), Llama (Touvron et al. 2023, arXiv 2302.13971), Qwen3 (Yang et al.
2025, arXiv 2505.09388), Stable Diffusion 1.4 (Rombach et al. 2022, arXiv 2112.10752), PixArt (Chen et al.
2023, arXiv 2310.00426), SDXL (Podell et al. 2023, arXiv 2307.01952), Stable Diffusion 3.5 (Esser et al. 2024,
arXiv 2403.03206), FLUX.1 (Black Forest Labs 2024).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch

from lavibridge.vision.parts.loading import ignore_diffusers_deprecations
from lavibridge.vision.parts.published import SDXL_UNET

Sizes = Mapping[str, Any]
T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
T5_LARGE = {"d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16}
T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}
QWEN3_06B = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
CLIP_ROWS, T5_ROWS = 49408, 32128
"""Entries of the vocabularies."""
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
WIDE_AUTOENCODER = {
    **AUTOENCODER,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "sample_size": 1024,
}
SD14 = {"sample_size": 64, "cross_attention_dim": 768}
PIXART = {
    "sample_size": 64,
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "caption_channels": 4096,
    "in_channels": 4,
    "out_channels": 8,
}
SDXL = SDXL_UNET
SD35_MEDIUM = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
FLUX1 = {
    "patch_size": 1,
    "in_channels": 64,
    "num_layers": 19,
    "num_single_layers": 38,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
DIFFUSION = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
CLIP, PROJECTED, T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
PIPELINES: Mapping[str, tuple[str, tuple[str, Sizes], Sizes, Sizes, tuple[tuple[str, Sizes], ...]]] = {
    "sd14": (
        "StableDiffusionPipeline",
        ("UNet2DConditionModel", SD14),
        {**AUTOENCODER, "sample_size": 512},
        DIFFUSION,
        ((CLIP, CLIP_L),),
    ),
    "sdxl": (
        "StableDiffusionXLPipeline",
        ("UNet2DConditionModel", SDXL),
        {**AUTOENCODER, "sample_size": 1024},
        DIFFUSION,
        ((CLIP, CLIP_L), (PROJECTED, CLIP_G)),
    ),
    "sd35-medium": (
        "StableDiffusion3Pipeline",
        ("SD3Transformer2DModel", SD35_MEDIUM),
        {**WIDE_AUTOENCODER, "scaling_factor": 1.5305, "shift_factor": 0.0609},
        FLOW,
        ((PROJECTED, CLIP_L), (PROJECTED, CLIP_G), (T5, T5_XXL)),
    ),
    "flux1": (
        "FluxPipeline",
        ("FluxTransformer2DModel", FLUX1),
        {**WIDE_AUTOENCODER, "scaling_factor": 0.3611, "shift_factor": 0.1159},
        {**FLOW, "use_dynamic_shifting": True},
        ((CLIP, CLIP_L), (T5, T5_XXL)),
    ),
}
"""Name -> pipeline, denoiser, autoencoder, scheduler and text encoders, with their classes."""
LANGUAGE_MODELS: Mapping[str, Sizes] = {
    "t5-base": {"model_type": "t5", **T5_BASE, "vocab_size": T5_ROWS},
    "t5-large": {"model_type": "t5", **T5_LARGE, "vocab_size": T5_ROWS},
    "qwen3-0.6b": {"model_type": "qwen3", **QWEN3_06B},
}


def write_language_model(name: str, root: Path) -> Path:
    """Write a language model's config.json into a folder below ``root``, and return the folder."""
    return _write(root / name / "config.json", LANGUAGE_MODELS[name]).parent


def write_pipeline(name: str, root: Path) -> Path:
    """Write every configuration of an image model's pipeline into a folder below ``root``; return it."""
    folder = root / name
    pipeline, (denoiser, sizes), autoencoder, scheduler, encoders = PIPELINES[name]
    place = "unet" if denoiser.startswith("UNet") else "transformer"
    described: dict[str, Any] = {"_class_name": pipeline}
    _write(folder / place / "config.json", {"_class_name": denoiser, **sizes})
    _write(folder / "vae" / "config.json", {"_class_name": "AutoencoderKL", **autoencoder})
    _write(folder / "scheduler" / "scheduler_config.json", scheduler)
    for number, (encoder, widths) in enumerate(encoders, start=1):
        end = "" if number == 1 else f"_{number}"
        described[f"text_encoder{end}"] = ["transformers", encoder]
        rows, length = (T5_ROWS, 512) if encoder == T5 else (CLIP_ROWS, 77)
        _write(folder / f"text_encoder{end}" / "config.json", {**widths, "vocab_size": rows})
        _write(folder / f"tokenizer{end}" / "tokenizer_config.json", {"model_max_length": length})
    _write(folder / "model_index.json", described)
    return folder


def write_published(family: Any, name: str, root: Path) -> Path:
    """Write the configurations of a model that a vision family publishes into ``root``; return it."""
    model = family.published[name]
    described: dict[str, Any] = {"_class_name": model.pipeline}
    with torch.device("meta"), ignore_diffusers_deprecations():
        for folder, title, sizes in (
            (family.denoiser_folder, family.denoiser_class, model.denoiser),
            (family.autoencoder_folder, family.autoencoder_class, model.autoencoder),
        ):
            getattr(diffusers, title)(**sizes).save_config(root / folder)
    _write(root / "scheduler" / "scheduler_config.json", model.scheduler)
    for folder, sizes in model.text_encoders.items():
        described[folder] = ["transformers", sizes["_class_name"]]
        _write(root / folder / "config.json", sizes)
        tokenizer = folder.replace("text_encoder", "tokenizer")
        _write(root / tokenizer / "tokenizer_config.json", {"model_max_length": 512})
    _write(root / "model_index.json", described)
    return root


def _write(path: Path, content: Sizes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
