"""How much work a picture is worth: `exact`, `high` or `fast`.

    exact   every step guided, in the model's own number format
    high    as many steps, guided where it decides the picture; bfloat16 where the device gains by it
    fast    twelve steps, guided where it decides the picture; bfloat16 likewise

What is asked for by name (steps, guidance_interval) goes before a quality's own. What `high` and `fast` cost
in right pictures is measured in docs/performance.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.diffusion.guidance import EVERYWHERE, Interval


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What is done for a picture."""

    steps: int = 20
    sampler: str = "unipc"
    guidance_interval: Interval = EVERYWHERE
    bfloat16: bool = False


EXACT = "exact"
QUALITIES: Mapping[str, Quality] = {
    EXACT: Quality(),
    "high": Quality(guidance_interval=(0.0, 0.5), bfloat16=True),
    "fast": Quality(steps=12, sampler="unipc_trailing", guidance_interval=(0.0, 0.5), bfloat16=True),
}


def read_quality(name: str) -> Quality:
    """The quality of that name; RecipeError where there is none."""
    if name not in QUALITIES:
        raise RecipeError(
            f"quality: there is no '{name}'{did_you_mean(name, tuple(QUALITIES))} "
            f"(there are {', '.join(QUALITIES)})"
        )
    return QUALITIES[name]


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether drawing is faster in bfloat16 there: on GPUs that multiply in it themselves. On CPUs
    that do, converting the weights in every call takes most of the gain (docs/performance.md)."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
