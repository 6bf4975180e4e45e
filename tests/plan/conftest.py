"""Configurations of published models, as folders without weights."""

import json
from pathlib import Path

import diffusers
import pytest
import torch

T5_LARGE = {
    "model_type": "t5",
    "d_model": 1024,
    "d_kv": 64,
    "d_ff": 4096,
    "num_layers": 24,
    "num_heads": 16,
    "vocab_size": 32128,
}
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5-Large and Stable Diffusion 1.4: every configuration, no weights and no tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "t5-large").mkdir()
    (folder / "t5-large" / "config.json").write_text(json.dumps(T5_LARGE))
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        autoencoder = diffusers.AutoencoderKL(**AUTOENCODER)
    unet.save_config(folder / "sd14" / "unet")
    autoencoder.save_config(folder / "sd14" / "vae")
    diffusers.DDPMScheduler(beta_schedule="scaled_linear").save_config(folder / "sd14" / "scheduler")
    (folder / "sd14" / "model_index.json").write_text("{}")
    return folder
