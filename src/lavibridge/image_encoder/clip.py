"""CLIP image encoders, read patch by patch; from a whole CLIP, its image side is loaded.

    picture --scaled, cropped, normalised--> patches --> class token and one token for each patch

Radford et al. 2021, arXiv 2103.00020. Liu et al. 2023 (LLaVA), arXiv 2304.08485, read the same tokens. The
last layer comes after the encoder's final norm, which CLIP itself applies to the class token only.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError

from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures, TextSpec
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.core.sources import RANDOM, cannot_load, check_weight_files, locate_source, read_model_json
from lavibridge.image_encoder.base import ImageEncoder

_TYPES = ("clip", "clip_vision_model")
_TOY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
"""Configuration of `source: random`."""


class ClipVision(ImageEncoder):
    """CLIPVisionModel."""

    backbone: Any

    def __init__(self, config: ImageEncoder.Config, device: torch.device | None = None) -> None:
        """Load the model; on the meta ``device``, build it from its config.json."""
        super().__init__()
        self.config = config
        is_meta = device is not None and device.type == "meta"
        settings = _settings(config)
        if config.source == RANDOM or is_meta:
            with torch.random.fork_rng(devices=[]), device or torch.device("cpu"):
                torch.manual_seed(0)
                self.backbone = transformers.CLIPVisionModel(settings).to(pick_dtype(config.dtype))
        else:
            self.backbone = _load_backbone(config)
        self.backbone.requires_grad_(False).eval()
        self.size = int(settings.image_size)
        self.processor = None if is_meta else _processor(config, self.size)
        self.spec = TextSpec(width=settings.hidden_size, layers=settings.num_hidden_layers + 1)

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether config.json names CLIP or its image side."""
        if source == RANDOM:
            return False
        description = read_model_json(source, "config.json", revision)
        return description is not None and description.get("model_type") in _TYPES

    def encode(self, pictures: Sequence[Image.Image], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Features of pictures; see `ImageEncoder.encode`."""
        if reading.queries is not None or reading.context_free:
            raise ModelError("an image encoder has neither queries nor context-free features")
        assert self.processor is not None  # on the meta device nothing is encoded
        rgb = [picture.convert("RGB") for picture in pictures]
        weight = next(self.backbone.parameters())
        pixels = self.processor(images=rgb, return_tensors="pt")["pixel_values"].to(weight)
        output = self.backbone(pixel_values=pixels, output_hidden_states=True)
        last = self.spec.layers - 1
        norm = self.backbone.get_submodule(_norm_name(self.backbone))
        layers = []
        for layer in reading.layers:
            number = layer + self.spec.layers if layer < 0 else layer
            if not 0 <= number <= last:
                raise ModelError(
                    f"the half reads layer {layer}, but '{self.config.source}' has layers 0 to {last}"
                )
            hidden = output.hidden_states[number]
            layers.append(norm(hidden) if number == last else hidden)
        stacked = torch.stack(layers, dim=1).float()
        mask = torch.ones(len(stacked), stacked.shape[2], dtype=torch.bool, device=stacked.device)
        return TextFeatures(hidden=stacked, mask=mask)


def _settings(config: ImageEncoder.Config) -> Any:
    """Return the configuration of the image side."""
    if config.source == RANDOM:
        return transformers.CLIPVisionConfig(**_TOY)
    description = read_model_json(config.source, "config.json", config.revision)
    if description is None or description.get("model_type") not in _TYPES:
        raise ModelError(
            f"'{config.source}' is no CLIP model (model_type {(description or {}).get('model_type')}): "
            "choose one such as openai/clip-vit-base-patch32"
        )
    return transformers.CLIPVisionConfig(**description.get("vision_config", description))


def _load_backbone(config: ImageEncoder.Config) -> Any:
    """Load the image side. Raises ModelError if it cannot be loaded or weights are missing."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    check_weight_files(config.source, "", config.revision)
    try:
        backbone, report = transformers.CLIPVisionModel.from_pretrained(
            locate_source(config.source, config.revision),
            config=_settings(config),
            revision=config.revision or "main",
            dtype=pick_dtype(config.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise cannot_load("image encoder", config.source, "", error) from error
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"'{config.source}' lacks weights of its image side, such as {some}")
    return backbone


def _processor(config: ImageEncoder.Config, size: int) -> Any:
    """Return the model's own image processor, in the PIL version: the same numbers on every machine."""
    own: dict[str, Any] = {}
    if config.source == RANDOM:
        own = {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    try:
        return transformers.AutoImageProcessor.from_pretrained(
            locate_source("mini-clip" if own else config.source, config.revision),
            revision=config.revision or "main",
            trust_remote_code=False,
            backend="pil",
            **own,
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"'{config.source}' has no image processor that can be loaded: {error}") from error


def _norm_name(backbone: Any) -> str:
    """Return the name of the final norm."""
    return next(name for name, _ in backbone.named_modules() if name.endswith("post_layernorm"))
