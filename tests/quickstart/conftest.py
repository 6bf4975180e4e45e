"""A folder like a published Stable Diffusion: toy networks of the real classes, its own CLIP among them."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextModel

from lavibridge.bridge import Bridge


@pytest.fixture(scope="session")
def toy_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; it draws pictures of 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("models") / "toy-sd"
    random = {"source": "random"}
    plain = Bridge.compose({"kind": "clip", **random}, {"kind": "sd", **random}, "lavi", None, None)
    unet, clip = plain.vision.backbone, plain.language.backbone
    factor = plain.vision.default_size // unet.config.sample_size  # type: ignore[union-attr, operator]
    unet.register_to_config(sample_size=64 // factor)  # type: ignore[operator]
    unet.save_pretrained(folder / "unet")  # type: ignore[operator]
    plain.vision.autoencoder.save_pretrained(folder / "vae")  # type: ignore[operator, union-attr]
    plain.vision.scheduler.save_pretrained(folder / "scheduler")
    config = clip.config  # type: ignore[union-attr]
    config.hidden_size = plain.vision.spec.context  # type: ignore[union-attr]
    torch.manual_seed(0)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    plain.language.tokenizer.save_pretrained(folder / "tokenizer")  # type: ignore[operator, union-attr]
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
