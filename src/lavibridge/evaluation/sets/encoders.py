"""Extractors: the Inception of FID, and any image model of transformers, each under a resize rule.

    FILE.safetensors     the 2015 Inception-v3, (x - 128) / 128 as TensorFlow had it (`legacy`: 127.5)
    a model              its pooled picture feature, or its projected one where it pairs pictures with texts

Which network and which rule goes into the card of every number made with it.
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
from lavibridge.core.identity import file_hash
from lavibridge.core.paths import at_home
from lavibridge.evaluation.networks import PretrainedNetwork, image_features
from lavibridge.evaluation.sets.features import Extractor, Features
from lavibridge.evaluation.sets.inception import SIDE, InceptionV3, load_inception
from lavibridge.evaluation.sets.resize import Rule, resize

Resize = Rule | Literal["model"]
"""`model`: as the model's own processor does it."""
INCEPTION_SOURCE = "pt_inception-2015-12-05-6726825d.pth of pytorch-fid"


def make_extractor(features: str, rule: Resize | None) -> Extractor:
    """The extractor that options name; ModelError where its files are absent.

    Without a rule: `clean` for the Inception, the model's own processor for others.
    """
    if features.endswith(".safetensors"):
        return InceptionExtractor(at_home(features), rule or "clean")
    return ModelExtractor(features, rule or "model")


class InceptionExtractor(Extractor):
    """The features of FID."""

    def __init__(self, path: Path, rule: Resize) -> None:
        if rule == "model":
            raise ModelError("the Inception has no rule of its own: take clean, legacy or torch-fidelity")
        if not path.is_file():
            raise ModelError(
                f"there is no '{path}', the weights of FID's Inception: load {INCEPTION_SOURCE} with "
                "torch.load(..., weights_only=True) and write them with safetensors.torch.save_file; or name "
                "an image model as `features`"
            )
        self.path = path
        self.rule: Rule = rule

    def card(self) -> dict[str, Any]:
        """The file's hash and the rule."""
        return {"model": "inception-v3-2015-12-05", "id": file_hash(self.path), "resize": self.rule}

    @cached_property
    def network(self) -> InceptionV3:
        """The network, on the device in use."""
        return load_inception(self.path).to(pick_device())

    def features(self, pictures: Sequence[Image.Image]) -> Features:
        """Rows of 2048."""
        middle = 127.5 if self.rule == "legacy" else 128.0
        pixels = (_stack(pictures, SIDE, self.rule) - middle) / middle
        with torch.no_grad():
            found = self.network(pixels.to(pick_device()))
        return found.double().cpu().numpy()

    def free(self) -> None:
        """Let go of the weights."""
        self.__dict__.pop("network", None)


class ModelExtractor(Extractor):
    """The pooled features of an image model."""

    def __init__(self, source: str, rule: Resize) -> None:
        self.network, self.rule = PretrainedNetwork(source), rule

    def card(self) -> dict[str, Any]:
        """The model and the rule."""
        return {**self.network.card(), "resize": self.rule}

    def features(self, pictures: Sequence[Image.Image]) -> Features:
        """Rows of the model's width."""
        with torch.no_grad():
            found = image_features(self.network, self._pixels(pictures))
        return found.double().cpu().numpy()

    def free(self) -> None:
        """Let go of the weights."""
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


def _stack(pictures: Sequence[Image.Image], size: int, rule: Rule) -> Float[Tensor, "batch 3 size size"]:
    rows = [resize(np.array(picture, dtype=np.uint8), size, rule) for picture in pictures]
    return torch.from_numpy(np.stack(rows)).float().permute(0, 3, 1, 2)
