"""What prompts carry for the metrics that judge their pictures, and the error where they do not."""

from dataclasses import dataclass
from typing import TypeVar

from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.benchmarks.spatial import SpatialRelation

MetadataT = TypeVar("MetadataT")


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """The noun phrases of a prompt, each of which the picture should show."""

    phrases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Complex:
    """A prompt of T2I-CompBench's complex category, and which of three scores make up its own."""

    phrases: tuple[str, ...]
    relation: SpatialRelation | None
    """None where it states none that the spatial rule knows: that part is 0."""
    bare: str
    """The prompt without adjectives, which CLIP reads."""
    is_spatial: bool
    """Whether the spatial score counts."""
    is_action: bool
    """Whether CLIP's score counts."""


def metadata_of(task: Task, wanted: type[MetadataT], prompts: str) -> MetadataT:
    """What a task carries; DataError where it is not `wanted`, naming the prompts that carry that."""
    if isinstance(task.metadata, wanted):
        return task.metadata
    raise DataError(
        f"'{task.prompt[:60]}' carries {type(task.metadata).__name__}, not {wanted.__name__}: this metric "
        f"judges pictures of prompts of kind '{prompts}'; name its `categories` where a suite has others"
    )
