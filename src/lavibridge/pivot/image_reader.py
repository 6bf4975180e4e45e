"""Reads pictures into the slots of a pivot, so that an image model draws what a picture shows.

    picture --image encoder--> features --image-encoder half--> Z --vision half--> conditioning

The slots are those that the pivot's own language half fills for a caption of the picture.
"""

from collections.abc import Sequence
from os import PathLike

import torch
from PIL import Image

from lavibridge.bridge.choices import ModelChoice
from lavibridge.connectors.pivot import LanguageHalf, Slots
from lavibridge.core.contracts import ReadingSpec, TextFeatures
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.pivot.compose import open_half
from lavibridge.pivot.folder import read_pivot
from lavibridge.pivot.half import config_of, load_half


class ImageReader(torch.nn.Module):
    """An image encoder with its half."""

    def __init__(self, encoder: ImageEncoder, half: LanguageHalf) -> None:
        super().__init__()
        self.encoder, self.image_half = encoder, half

    @staticmethod
    def from_pivot(
        pivot: str | PathLike[str], image_encoder: ModelChoice, dtype: str | None = None
    ) -> "ImageReader":
        """Load an image encoder with its half.

        ``image_encoder`` is the name of a half or a model, and ``dtype`` its number format, as in
        `lavibridge.pivot.compose`. Raises RunError or ModelError if the pivot has no such half.
        """
        opened = read_pivot(pivot)
        stored, encoder = open_half(opened, "image_encoder", image_encoder, dtype)
        assert isinstance(encoder, ImageEncoder)  # by its side
        space = {"slots": opened.description.slots, "width": opened.description.width}
        half = LanguageHalf(config_of(stored).model_copy(update=space), encoder.spec)
        load_half(stored, half)
        return ImageReader(encoder, half).eval()

    @torch.no_grad()
    def features(self, pictures: Sequence[Image.Image]) -> TextFeatures:
        """Return the features that the half reads."""
        return self.encoder.encode(pictures, ReadingSpec(layers=self.image_half.read.layers))

    @torch.no_grad()
    def slots(self, features: TextFeatures) -> Slots:
        """Return the slots of pictures, from their features."""
        return self.image_half.slots(features)
