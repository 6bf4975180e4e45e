"""Classifier-free guidance: extrapolates from the prediction without the prompt to the one with it.

    guided = unconditional + scale (conditional - unconditional)        scale 1: the prompt alone
    renormalised = guided |conditional| / |guided|                      the norm of parts of the prediction

Ho and Salimans 2022, arXiv 2207.12598. Some models renormalise the guided prediction (Qin et al. 2025, arXiv
2503.21758). Guidance in an interval of the steps costs less and can look better:
Kynkäänniemi et al. 2024, arXiv 2404.07724.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import RecipeError

GuidanceInterval = tuple[float, float]
"""Start and stop of guidance as fractions of the steps, in [0, 1]; (0, 1) covers all steps."""
GUIDED_EVERYWHERE: GuidanceInterval = (0.0, 1.0)


def apply_guidance(
    unconditional: Float[Tensor, "batch channel h w"],
    conditional: Float[Tensor, "batch channel h w"],
    scale: float,
) -> Float[Tensor, "batch channel h w"]:
    """Return the guided prediction."""
    return unconditional + scale * (conditional - unconditional)


def renormalize(
    guided: Float[Tensor, "batch *place"], conditional: Float[Tensor, "batch *place"], dim: int
) -> Float[Tensor, "batch *place"]:
    """Return the guided prediction with the norm along ``dim`` of the conditional one."""
    return guided * (conditional.norm(dim=dim, keepdim=True) / guided.norm(dim=dim, keepdim=True))


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """The scale of classifier-free guidance, and the interval of steps in which it acts."""

    scale: float
    """1 means no guidance: the prompt alone."""
    interval: GuidanceInterval = GUIDED_EVERYWHERE

    def __post_init__(self) -> None:
        start, stop = self.interval
        if not 0 <= start < stop <= 1:
            raise RecipeError(
                "guidance_interval is start and stop as shares of the steps, 0 <= start < stop <= 1, found "
                f"{start} and {stop}; for no guidance at all, set guidance_scale to 1"
            )

    def applies(self, step: int, steps: int) -> bool:
        """Whether to guide this step, counted from 0."""
        start, stop = self.interval
        return self.scale != 1 and start <= step / steps < stop
