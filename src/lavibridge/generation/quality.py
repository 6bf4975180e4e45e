"""How much work a picture gets: `exact`, `high` or `fast`.

    exact   every step guided, in the model's own number format
    high    as many steps, guided where it decides the picture; bfloat16 where the device gains by it
    fast    twelve steps, guided where it decides the picture; bfloat16 likewise

Explicit arguments (num_inference_steps, guidance_interval, sampler) override a quality's own values.
docs/performance.md measures how many right pictures `high` and `fast` cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.diffusion.guidance import GUIDED_EVERYWHERE, GuidanceInterval


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The settings that a quality stands for."""

    num_inference_steps: int = 20
    sampler: str = "unipc"
    guidance_interval: GuidanceInterval = GUIDED_EVERYWHERE
    bfloat16: bool = False


EXACT_QUALITY = "exact"
QUALITIES: Mapping[str, Quality] = {
    EXACT_QUALITY: Quality(),
    "high": Quality(guidance_interval=(0.0, 0.5), bfloat16=True),
    "fast": Quality(
        num_inference_steps=12, sampler="unipc_trailing", guidance_interval=(0.0, 0.5), bfloat16=True
    ),
}


def read_quality(name: str) -> Quality:
    """The quality of that name; RecipeError where there is none."""
    if name not in QUALITIES:
        raise RecipeError(
            f"quality: there is no '{name}'{did_you_mean(name, tuple(QUALITIES))} "
            f"(there are {', '.join(QUALITIES)})"
        )
    return QUALITIES[name]


def quality_gains_by_bfloat16(device: torch.device) -> bool:
    """Whether drawing is faster in bfloat16: on GPUs that multiply in it natively.

    On CPUs that do, converting the weights in every call takes most of the gain (docs/performance.md)."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
