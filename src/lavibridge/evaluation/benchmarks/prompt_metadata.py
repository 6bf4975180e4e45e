"""The metadata that prompts carry for metrics, and the error if it is missing."""

from dataclasses import dataclass
from typing import TypeVar

from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.benchmarks.spatial import SpatialRelation

MetadataT = TypeVar("MetadataT")


@dataclass(frozen=True, kw_only=True)
class PhrasesMetadata:
    """The noun phrases of a prompt, all of which the picture should show."""

    phrases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ComplexMetadata:
    """A prompt of T2I-CompBench's complex category, and which of three scores apply to it."""

    phrases: tuple[str, ...]
    relation: SpatialRelation | None
    """None if the prompt states no known relation; that part then scores 0."""
    bare: str
    """The prompt without adjectives, for CLIP."""
    is_spatial: bool
    """Whether the spatial score counts."""
    is_action: bool
    """Whether CLIP's score counts."""


def prompt_metadata(task: Task, expected: type[MetadataT], prompts: str) -> MetadataT:
    """Return a task's metadata. Raises DataError if it is not of type `expected`; `prompts` is its source."""
    if isinstance(task.metadata, expected):
        return task.metadata
    raise DataError(
        f"'{task.prompt[:60]}' carries {type(task.metadata).__name__}, not {expected.__name__}: this metric "
        f"needs prompts of kind '{prompts}'; restrict its `categories` if the suite has others"
    )
