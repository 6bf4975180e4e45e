"""UniPC whose last step begins a full step before the end, for few steps.

Zhao et al. 2023, arXiv 2302.04867; trailing times: Lin et al. 2023, arXiv 2305.08891.
"""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.generation.samplers.base import Sampler, flow_settings


class UniPCTrailing(Sampler):
    """UniPC with trailing times; the shift spaces a flow's steps, so there it is UniPC."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """UniPC with trailing times."""
        return diffusers.UniPCMultistepScheduler(**noise, timestep_spacing="trailing")

    def of_flow(self, noise: Mapping[str, Any], shift: float, is_dynamic: bool) -> Any:
        """UniPC over shifted sigmas."""
        return diffusers.UniPCMultistepScheduler(**flow_settings(noise, shift))
