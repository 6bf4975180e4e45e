"""The LAION aesthetic predictor, version 2: predicts how beautiful people find a picture, from 1 to 10.

    score = w . e + b,     e = CLIP ViT-L/14's embedding of the picture, at length 1

The published head has five linear layers (768, 1024, 128, 64, 16, 1) with only dropout between them. It is
therefore one affine map, w = W5 W4 W3 W2 W1, to which we fold it. Schuhmann 2022,
github.com/christophschuhmann/improved-aesthetic-predictor; it does not read the prompt.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.core.identity import cached_file_hash
from lavibridge.core.paths import expand_path
from lavibridge.core.safetensors_file import load_tensors
from lavibridge.core.tensors import check_tensors_finite
from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.dual_encoder import DualEncoderMetric

Affine = tuple[Float[Tensor, " width"], float]


class Aesthetics(DualEncoderMetric):
    """The affine head on CLIP's embedding."""

    class Config(DualEncoderMetric.Config):
        """The options of the aesthetic predictor."""

        head: str = "sac+logos+ava1-l14-linearMSE.safetensors"
        """The head's weights as a .safetensors file with the published names (`layers.0.weight`, ...)."""
        model: str = "openai/clip-vit-large-patch14"
        """The CLIP that the head was trained on: a folder or a hub id."""

    config: "Aesthetics.Config"

    def __init__(self, config: "Aesthetics.Config") -> None:
        """Find the model and the head. Raises ModelError if one is missing."""
        self.path = expand_path(config.head)
        if not self.path.is_file():
            raise ModelError(
                f"there is no '{config.head}', the head of the aesthetic predictor: load sac+logos+ava1-l14-"
                "linearMSE.pth of christophschuhmann/improved-aesthetic-predictor with torch.load(..., "
                "weights_only=True), write it with safetensors.torch.save_file, and name the file as `head`"
            )
        super().__init__(config)

    def card(self) -> dict[str, Any]:
        """Model and head, by their hashes."""
        card = super().card()
        options = {key: value for key, value in card["options"].items() if key != "head"}
        return {**card, "options": options, "head": cached_file_hash(self.path)}

    @cached_property
    def affine(self) -> Affine:
        """The head as one affine map."""
        return fold_aesthetics_head(self.path)

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """Apply the head to the pictures' embeddings."""
        weight, bias = self.affine
        embedded = self.dual_encoder.pictures(pictures).cpu()
        if embedded.shape[1] != len(weight):
            raise ModelError(
                f"the head reads embeddings of width {len(weight)}, but '{self.config.model}' has width "
                f"{embedded.shape[1]}: choose the CLIP that the head was trained on"
            )
        return [Score(value=float(value)) for value in embedded @ weight + bias]


def fold_aesthetics_head(path: Path) -> Affine:
    """Fold the layers of a head into one weight and bias. Raises ModelError if they do not fit together."""
    state = load_tensors(path)
    check_tensors_finite(state, str(path))
    numbers = sorted(
        int(found[1]) for name in state if (found := re.fullmatch(r"layers\.(\d+)\.weight", name))
    )
    names = {f"layers.{number}.{part}" for number in numbers for part in ("weight", "bias")}
    if not numbers or set(state) != names:
        raise ModelError(f"{path} is not a head of linear layers: it has {', '.join(sorted(state)[:4])}, ...")
    first = state[f"layers.{numbers[0]}.weight"]
    weight, bias = torch.eye(first.shape[1], dtype=torch.float64), torch.zeros(first.shape[1]).double()
    for number in numbers:
        matrix, shift = (state[f"layers.{number}.{part}"].double() for part in ("weight", "bias"))
        if matrix.shape[1] != weight.shape[0] or shift.shape != matrix.shape[:1]:
            raise ModelError(f"{path}: layers.{number} does not fit the layer before it")
        weight, bias = matrix @ weight, matrix @ bias + shift
    if weight.shape[0] != 1:
        raise ModelError(f"{path} has {weight.shape[0]} outputs, but a head must have one")
    return weight[0].float(), float(bias[0])
