"""Feature extractors: the Inception of FID and any image model of transformers, with a resize rule.

    FILE.safetensors     the 2015 Inception-v3, (x - 128) / 128 as in TensorFlow (`legacy`: 127.5)
    a model              its pooled image feature, or the projected one of a dual encoder

The card of every number records the network and the rule.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavibridge.core.device import pick_device
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import cached_file_hash
from lavibridge.core.paths import expand_path
from lavibridge.evaluation.networks import PretrainedNetwork, network_image_features
from lavibridge.evaluation.sets.features import FeatureExtractor, SetFeatures
from lavibridge.evaluation.sets.inception import INCEPTION_SIDE, InceptionV3, load_inception
from lavibridge.evaluation.sets.resize import ResizeRule, resize

ExtractorResize = ResizeRule | Literal["model"]
"""`model` uses the model's own processor."""
_INCEPTION_SOURCE = "pt_inception-2015-12-05-6726825d.pth of pytorch-fid"


def make_extractor(features: str, rule: ExtractorResize | None) -> FeatureExtractor:
    """Create the extractor of the options. Raises ModelError if its files are missing.

    The default rule is `clean` for the Inception and the model's own processor for others.
    """
    if features.endswith(".safetensors"):
        return InceptionExtractor(expand_path(features), rule or "clean")
    return ModelExtractor(features, rule or "model")


class InceptionExtractor(FeatureExtractor):
    """Extracts the features of FID."""

    def __init__(self, path: Path, rule: ExtractorResize) -> None:
        if rule == "model":
            raise ModelError(
                "the Inception has no processor: set `resize` to clean, legacy or torch-fidelity"
            )
        if not path.is_file():
            raise ModelError(
                f"there is no '{path}', the weights of FID's Inception: load {_INCEPTION_SOURCE} with "
                "torch.load(..., weights_only=True) and write them with safetensors.torch.save_file; or name "
                "an image model as `features`"
            )
        self.path = path
        self.rule: ResizeRule = rule

    def card(self) -> dict[str, Any]:
        """The file's hash and the resize rule."""
        return {"model": "inception-v3-2015-12-05", "id": cached_file_hash(self.path), "resize": self.rule}

    @cached_property
    def network(self) -> InceptionV3:
        """The network, on the current device."""
        return load_inception(self.path).to(pick_device())

    def features(self, pictures: Sequence[Image.Image]) -> SetFeatures:
        """Features of shape (picture, 2048)."""
        middle = 127.5 if self.rule == "legacy" else 128.0
        pixels = (_stack(pictures, INCEPTION_SIDE, self.rule) - middle) / middle
        with torch.no_grad():
            found = self.network(pixels.to(pick_device()))
        return found.double().cpu().numpy()

    def free(self) -> None:
        """Free the weights."""
        self.__dict__.pop("network", None)


class ModelExtractor(FeatureExtractor):
    """Extracts the pooled features of an image model."""

    def __init__(self, source: str, rule: ExtractorResize) -> None:
        self.network, self.rule = PretrainedNetwork(source), rule

    def card(self) -> dict[str, Any]:
        """The model and the resize rule."""
        return {**self.network.card(), "resize": self.rule}

    def features(self, pictures: Sequence[Image.Image]) -> SetFeatures:
        """Features of shape (picture, model width)."""
        with torch.no_grad():
            found = network_image_features(self.network, self._pixels(pictures))
        return found.double().cpu().numpy()

    def free(self) -> None:
        """Free the weights."""
        self.network.free()

    def _pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        if self.rule == "model":
            return self.network.pixels(pictures)
        processor = self.network.processor
        mean, std = (
            torch.tensor(each).view(1, 3, 1, 1) for each in (processor.image_mean, processor.image_std)
        )
        size = self.network.side
        return ((_stack(pictures, size, self.rule) / 255 - mean) / std).to(self.network.device)


def _stack(
    pictures: Sequence[Image.Image], size: int, rule: ResizeRule
) -> Float[Tensor, "batch 3 size size"]:
    rows = [resize(np.array(picture, dtype=np.uint8), size, rule) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).float().permute(0, 3, 1, 2)
