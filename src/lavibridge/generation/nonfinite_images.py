"""The error for images with NaN or infinity, which would otherwise turn out black.

features --> latents --> image        the error names the first stage that is not finite
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
    """Some images have NaN or infinite values."""

    def __init__(self, prompts: Sequence[str], pictures: Sequence[Any], reasons: Mapping[int, str]) -> None:
        first = next(iter(reasons))
        super().__init__(
            f"{len(reasons)} of {len(prompts)} images have NaN or infinite values; the first is number "
            f"{first + 1} ('{prompts[first][:60]}'): {reasons[first]}; {_ADVICE}"
        )
        self.pictures = tuple(pictures)
        """All images in order, with None for every image that is not finite."""
        self.reasons = reasons
        """The index from 0 of each image that is not finite -> the reason."""


def first_nonfinite_stage(stages: Mapping[str, Iterable[Tensor | None]]) -> str:
    """Describe the first of the ``stages`` that is not finite; "" if all are finite."""
    for name, values in stages.items():
        if not all(value is None or bool(value.isfinite().all()) for value in values):
            return f"{name} are not finite"
    return ""
