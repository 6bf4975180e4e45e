"""Classifier-free guidance: extrapolates from the prediction without the prompt to the one with it.

    guided = unconditional + scale (conditional - unconditional)        scale 1: the prompt alone

Ho and Salimans 2022, arXiv 2207.12598. Guidance in an interval of the steps costs less and can look better:
Kynkäänniemi et al. 2024, arXiv 2404.07724.
"""

from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import RecipeError

Interval = tuple[float, float]
"""Start and stop of guidance as fractions of the steps, in [0, 1]; (0, 1) covers all steps."""
EVERYWHERE: Interval = (0.0, 1.0)


def guide(
    unconditional: Float[Tensor, "batch channel h w"],
    conditional: Float[Tensor, "batch channel h w"],
    scale: float,
) -> Float[Tensor, "batch channel h w"]:
    """Return the guided prediction."""
    return unconditional + scale * (conditional - unconditional)


def check_interval(interval: Interval) -> None:
    """Raise RecipeError unless 0 <= start < stop <= 1."""
    start, stop = interval
    if not 0 <= start < stop <= 1:
        raise RecipeError(
            "guidance_interval is start and stop as shares of the steps, 0 <= start < stop <= 1, found "
            f"{start} and {stop}; for no guidance at all, set guidance to 1"
        )


def is_guided(step: int, steps: int, scale: float, interval: Interval) -> bool:
    """Whether to guide this step, counted from 0."""
    start, stop = interval
    return scale != 1 and start <= step / steps < stop
