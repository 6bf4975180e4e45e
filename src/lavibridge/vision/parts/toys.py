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

TOY_DIFFUSION: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}
TOY_FLOW: Mapping[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
