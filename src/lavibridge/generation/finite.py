"""Pictures whose numbers are no numbers: said, with where it began, and never shown as black ones.

features --> latents --> picture        the first that holds NaN or infinity is named
"""

from collections.abc import Iterable, Mapping, Sequence

from PIL import Image
from torch import Tensor

from lavibridge.core.errors import LaviError

ADVICE = (
    "compute in float32 or bfloat16 (vision.dtype, language.dtype), lower the guidance, or take an earlier "
    "checkpoint"
)


class NotDrawnError(LaviError):
    """Pictures could not be drawn, as their numbers are not finite."""

    def __init__(
        self, prompts: Sequence[str], pictures: Sequence[Image.Image | None], reasons: Mapping[int, str]
    ) -> None:
        first = next(iter(reasons))
        super().__init__(
            f"{len(reasons)} of {len(prompts)} pictures could not be drawn, among them number {first + 1} "
            f"('{prompts[first][:60]}'): {reasons[first]}; {ADVICE}"
        )
        self.pictures = tuple(pictures)
        """Those that could; None in the others' places."""
        self.reasons = reasons
        """Why not, by their places, from 0."""


def fault(stages: Mapping[str, Iterable[Tensor | None]]) -> str:
    """Which of a picture's stages, in their order, is the first that is not finite; empty where all are."""
    for name, values in stages.items():
        if not all(value is None or bool(value.isfinite().all()) for value in values):
            return f"{name} are not finite"
    return ""
