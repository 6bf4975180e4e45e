"""The contract of every kind of data: samples by index, pictures by index, and no randomness.

    dataset.sample(i)         name and captions: cheap, read at every visit
    dataset.picture(i, size)  the pixels: decoded or drawn on request, the same each time

The training order decides which sample comes when, from (seed, position) alone. A dataset therefore holds no
state, and an interrupted run sees the same samples in the same order as an uninterrupted one.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import Field

from lavibridge.core import registry
from lavibridge.core.config import Config as BaseConfig
from lavibridge.data.pictures.rejected import RejectedPictures

PicturePixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture's name (a path below the root, or a scene number) and its captions, at least one."""

    name: str
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetPart:
    """A contiguous range of a dataset's pictures, and its sampling weight relative to other parts."""

    count: int
    weight: float


class Dataset(ABC):
    """Image-caption pairs of one kind, constructed as `cls(config, rejected)`."""

    class Config(BaseConfig):
        """The settings of a kind."""

        size: int | None = Field(default=None, ge=8)
        """Height and width of the training pictures in pixels; the vision model's own by default."""
        buckets: bool | Annotated[int, Field(strict=True, ge=2, le=99)] = False
        """Keep the pictures' proportions, from 1:2 to 2:1, at about size x size pixels: true for nine shapes,
        or the number of shapes; false crops every picture to a square."""
        flip: bool = False
        """Mirror the picture at half of the visits, unless one of its captions mentions left or right."""
        prefix: str = ""
        """Text before every caption, with the space or comma that follows it."""
        trigger: str | None = Field(default=None, min_length=1)
        """A word that every caption has: it comes first in captions without it."""
        shuffle_tags: bool = False
        """Shuffle the tags of a caption, which commas separate, at every visit."""
        tag_dropout: float = Field(default=0.0, ge=0, lt=1)
        """Share of the tags that a visit leaves out; never the trigger."""
        keep_tags: int = Field(default=0, ge=0)
        """Number of tags at the start, besides the trigger, that are neither shuffled nor left out."""

        @property
        def varies_captions(self) -> bool:
            """Whether a caption differs from visit to visit."""
            return self.shuffle_tags or self.tag_dropout > 0

        @property
        def edits_captions(self) -> bool:
            """Whether captions are not those of the files."""
            return bool(self.prefix) or self.trigger is not None or self.varies_captions

    has_pictures: bool = True
    """Whether each sample has a picture; False for a data set of captions alone."""

    @abstractmethod
    def __init__(self, config: "Dataset.Config", rejected: RejectedPictures) -> None:
        """Read the index and check every picture; unusable ones go to `rejected`."""
        self.config = config
        self.rejected = rejected

    @abstractmethod
    def __len__(self) -> int:
        """Number of pictures without the rejected ones."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Return name and captions of one picture."""

    def visit_caption(self, index: int, caption: str, seed: int) -> str:
        """Return one of a picture's captions as one visit sees it; ``seed`` belongs to the visit."""
        return caption

    def names(self) -> Iterator[str]:
        """Yield every picture's name in order."""
        return (self.sample(index).name for index in range(len(self)))

    @abstractmethod
    def picture(self, index: int, size: tuple[int, int]) -> PicturePixels:
        """Return the pixels of one picture, scaled and cropped to (height, width)."""

    @abstractmethod
    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        """Return height and width of every picture before scaling and cropping."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """Return the bytes that one picture is made from. Their hash identifies the picture."""

    def parts(self) -> tuple[DatasetPart, ...]:
        """Return the parts that carry weights, in the order of their pictures; by default one part."""
        return (DatasetPart(count=len(self), weight=1.0),)

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short text that changes with the samples or their order; a resumed run compares it."""


def open_dataset(kind: str, config: Dataset.Config, rejected: RejectedPictures) -> Dataset:
    """Open the data of a recipe: read the index and check every picture once, before training."""
    dataset: type[Dataset] = registry.load_kind("data", kind)
    opened = dataset(config, rejected)
    if not config.edits_captions:
        return opened
    from lavibridge.data.edited_captions import EditedCaptions  # which is a Dataset

    return EditedCaptions(opened)
