"""Presets that trade quality for speed: `exact`, `high` and `fast`.

    exact   20 steps, all guided, in the model's own number format
    high    20 steps, the first half guided; bfloat16 on GPUs that multiply in it natively
    fast    12 steps, the first half guided; bfloat16 likewise

Explicit arguments (num_inference_steps, guidance_interval, sampler) override a preset's values.
docs/performance.md measures how many fewer correct images `high` and `fast` generate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.diffusion.guidance import GUIDED_EVERYWHERE, GuidanceInterval


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The settings of one preset."""

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
    """Return the preset of that name. Raises RecipeError if there is none."""
    if name not in QUALITIES:
        raise RecipeError(
            f"quality: unknown '{name}'{did_you_mean(name, tuple(QUALITIES))} "
            f"(choose from {', '.join(QUALITIES)})"
        )
    return QUALITIES[name]


def quality_gains_by_bfloat16(device: torch.device) -> bool:
    """Whether generation is faster in bfloat16: True on GPUs that multiply in it natively.

    On CPUs, converting the weights in every call costs most of the gain (docs/performance.md).
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
