"""What every kind of data promises: samples by index, pictures by index, and nothing random.

    dataset.sample(i)         name and captions: cheap, read at every visit
    dataset.picture(i, size)  the pixels: decoded or drawn when asked for, the same each time

Which sample is visited when is decided elsewhere, from (seed, position) alone; so a dataset holds no state,
and a run that is interrupted meets the same samples in the same order as one that is not.
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
from lavibridge.data.pictures.rejected import Rejected

Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture's name (a path below the root, or a scene number) and its captions, at least one."""

    name: str
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DatasetPart:
    """Some of a dataset's pictures, one after the other, and how often they are met beside other parts."""

    count: int
    weight: float


class Dataset(ABC):
    """Image-caption pairs of one kind, made as `cls(config, rejected)`."""

    class Config(BaseConfig):
        """The settings of a kind."""

        size: int | None = Field(default=None, ge=8)
        """Height and width of the pictures trained on; the vision model's own when not given."""
        buckets: bool | Annotated[int, Field(strict=True, ge=2, le=99)] = False
        """Keep the pictures' proportions, from 1:2 to 2:1, at about size x size pixels: true for nine shapes,
        a number for so many; false crops every picture to a square."""
        flip: bool = False
        """Mirror half of the visits, but never a picture with a caption that says left or right."""

    @abstractmethod
    def __init__(self, config: "Dataset.Config", rejected: Rejected) -> None:
        """Read the index and check every picture; what cannot be used goes to `rejected`."""
        self.config = config
        self.rejected = rejected

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures there are, without the rejected ones."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Name and captions of one picture."""

    def names(self) -> Iterator[str]:
        """Every picture's name, in order."""
        return (self.sample(index).name for index in range(len(self)))

    @abstractmethod
    def picture(self, index: int, size: tuple[int, int]) -> Pixels:
        """The pixels of one picture, scaled and cropped to (height, width)."""

    @abstractmethod
    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        """Height and width of every picture before it is scaled and cropped."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """What one picture is made from, to the last bit: a file's bytes. Its hash names the picture."""

    def parts(self) -> tuple[DatasetPart, ...]:
        """The parts that weights are given to, in the order of their pictures; one, if there are none."""
        return (DatasetPart(count=len(self), weight=1.0),)

    @abstractmethod
    def fingerprint(self) -> str:
        """A short text that changes when the samples or their order change; compared on resume."""


def open_dataset(kind: str, config: Dataset.Config, rejected: Rejected) -> Dataset:
    """Open the data of a recipe: the index is read and every picture is checked once, before training."""
    dataset: type[Dataset] = registry.load("data", kind)
    return dataset(config, rejected)
