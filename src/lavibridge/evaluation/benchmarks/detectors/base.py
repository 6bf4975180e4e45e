"""The contract of detectors: boxes of the named objects.

    find_detector("google/owlv2-base-patch16-ensemble")     of the kind that supports this model
        .detect(pictures, names, threshold)                 boxes per image, labelled with the given names

`find_detector` loads no weights; the first `detect` does.

The model's config.json determines the kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from lavibridge.core import registry
from lavibridge.core.sources import read_model_json
from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.networks import PretrainedNetwork

_PACKAGE = "evaluation.benchmarks.detectors"


class Detector(ABC):
    """A network that detects objects."""

    model_class: ClassVar[str]
    """The transformers class of such networks."""

    def __init__(self, source: str, revision: str | None = None) -> None:
        """Find the model; the first use loads its weights."""
        self.network = PretrainedNetwork(source, self.model_class, revision)

    @classmethod
    @abstractmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """Whether a model with this config.json is of this kind."""

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether the model at `source` is of this kind."""
        return cls.supports(read_model_json(source, "config.json", revision) or {})

    def unknown(self, names: Sequence[str]) -> list[str]:
        """The names that it can never detect."""
        return []

    @torch.inference_mode()
    def detect(
        self, pictures: Sequence[Image.Image], names: Sequence[Sequence[str]], threshold: float
    ) -> list[list[Box]]:
        """The boxes of the named objects above `threshold`, per picture, in its pixels."""
        unique_names = [list(dict.fromkeys(each)) for each in names]
        pairs = zip(pictures, unique_names, strict=True)
        return [self._find(picture, each, threshold) if each else [] for picture, each in pairs]

    @abstractmethod
    def _find(self, picture: Image.Image, names: list[str], threshold: float) -> list[Box]:
        """The boxes in one picture."""


def find_detector(source: str) -> Detector:
    """The detector at `source`. Raises ModelError if there is none or its kind is unknown."""
    found: Detector = registry.load_kind(_PACKAGE, registry.detect_kind(_PACKAGE, source))(source)
    return found


def make_box(name: str, score: float, corners: Sequence[float]) -> Box:
    """A box from its left, top, right and bottom."""
    left, top, right, bottom = corners
    return Box(name=name, score=score, left=left, top=top, right=right, bottom=bottom)
