"""Tiny autoencoders and schedules of the real classes, for `source: random`."""

from collections.abc import Mapping
from typing import Any

TOY_AUTOENCODER: Mapping[str, Any] = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 4,
    "sample_size": 32,
    "scaling_factor": 0.3,
}
TOY_WIDE_AUTOENCODER: Mapping[str, Any] = {**TOY_AUTOENCODER, "latent_channels": 16, "shift_factor": 0.1}
"""16 latent channels and a shift, as in newer models."""

TOY_VIDEO_AUTOENCODER: Mapping[str, Any] = {
    "base_dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2, 2],
    "num_res_blocks": 1,
    "temperal_downsample": (False, True),
    "latents_mean": (0.1, -0.2, 0.3, 0.0),
    "latents_std": (1.5, 0.5, 2.0, 1.0),
}
"""An autoencoder of videos, which takes an image as one frame."""

TOY_DIFFUSION: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
TOY_FLOW: Mapping[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}

TOY_TEXT_MODEL: Mapping[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 258,
}
"""A decoder over bytes (`language/parts/byte_tokens.py`), as wide as the tokens of the toys' denoisers."""
TOY_QWEN3: Mapping[str, Any] = {"_class_name": "Qwen3Model", **TOY_TEXT_MODEL}
TOY_SIZE = 32
"""Height and width of a toy's images, in pixels, where no configuration states them."""
TOY_T5: Mapping[str, Any] = {
    "_class_name": "T5EncoderModel",
    "vocab_size": 259,
    "d_model": 48,
    "d_kv": 16,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 258,
}
