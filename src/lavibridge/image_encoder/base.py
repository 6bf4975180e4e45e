"""The contract of an image encoder: pictures in, features of their patches out.

    pictures --image encoder--> TextFeatures --image-encoder half--> Z

An image encoder is to a pivot what a language model is: something that gives features, with a mask, of what a
caption describes. Its features have the same form, so a half that reads texts reads pictures too.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from PIL import Image
from torch import nn

from lavibridge.core.config import Changeable
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures, TextSpec
from lavibridge.core.identity import model_identity


class ImageEncoder(nn.Module, ABC):
    """A frozen image encoder; ``backbone`` is the network."""

    class Config(BaseConfig):
        """Which image encoder."""

        source: Changeable[str]
        """A folder, a hub id, the name of a shipped model (mini-clip), or `random` (a toy of the family)."""
        revision: Changeable[str | None] = None
        """Branch, tag or commit of a hub id."""
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        """Number format of the weights; features are float32."""

    config: "ImageEncoder.Config"
    spec: TextSpec
    """Width of a patch's features, number of readable layers, and the default read-out."""
    size: int
    """Height and width in pixels of the pictures that it reads; others are scaled and cropped."""
    backbone: nn.Module

    @classmethod
    @abstractmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether this family can load the model at ``source``; reads its configuration only."""

    @abstractmethod
    def encode(self, pictures: Sequence[Image.Image], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Return the features of pictures, one token for each patch, in the layers that ``reading`` names.

        A picture's features do not depend on the other pictures. Raises ModelError if the model cannot
        provide what ``reading`` requests.
        """

    def identity(self) -> str:
        """Return everything but the picture that affects its features: files and options."""
        return model_identity(self, self.config)
