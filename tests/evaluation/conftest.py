"""Tiny scorers of the real classes with random weights, and a cache folder that is not the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from lavibridge.core.paths import models_folder

TEXT = {
    "vocab_size": 948,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
VISION = {**TEXT, "image_size": 32, "patch_size": 8}


@pytest.fixture(scope="session")
def toy_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP that reads 16 tokens, with mini-clip's words."""
    folder = tmp_path_factory.mktemp("judges") / "toy-clip"
    text = {**TEXT, "max_position_embeddings": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=12)
    return _saved(folder, transformers.CLIPModel, config, CLIPImageProcessorPil, 16)


@pytest.fixture(scope="session")
def toy_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP that reads 12 tokens, with mini-clip's words."""
    folder = tmp_path_factory.mktemp("judges") / "toy-siglip"
    text = {**TEXT, "max_position_embeddings": 12, "projection_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return _saved(folder, transformers.SiglipModel, config, SiglipImageProcessorPil, 12)


def _saved(folder: Path, model: Callable, config: object, processor: Callable, limit: int) -> Path:  # type: ignore[type-arg]
    torch.manual_seed(0)
    made = model(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    made.save_pretrained(folder)
    processor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    source = models_folder() / "mini-clip"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        settings = json.loads((source / name).read_text())
        if "model_max_length" in settings:
            settings["model_max_length"] = limit
        (folder / name).write_text(json.dumps(settings))
    return folder
