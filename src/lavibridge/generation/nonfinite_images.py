"""Pictures with NaN or infinity are an error that names where it began, never black pictures.

features --> latents --> picture        the error names the first stage that is not finite
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lavibridge.core.errors import LaviError

_ADVICE = (
    "compute in float32 or bfloat16 (vision.dtype, language.dtype), lower the guidance, or take an earlier "
    "checkpoint"
)


class NonfiniteImageError(LaviError):
    """Some pictures are not finite."""

    def __init__(self, prompts: Sequence[str], pictures: Sequence[Any], reasons: Mapping[int, str]) -> None:
        first = next(iter(reasons))
        super().__init__(
            f"{len(reasons)} of {len(prompts)} pictures could not be drawn, among them number {first + 1} "
            f"('{prompts[first][:60]}'): {reasons[first]}; {_ADVICE}"
        )
        self.pictures = tuple(pictures)
        """The finite pictures, and None in the places of the others."""
        self.reasons = reasons
        """The reason for each of the others, by its place from 0."""


def first_nonfinite_stage(stages: Mapping[str, Iterable[Tensor | None]]) -> str:
    """The first stage, in their order, that is not finite; empty where all are."""
    for name, values in stages.items():
        if not all(value is None or bool(value.isfinite().all()) for value in values):
            return f"{name} are not finite"
    return ""
