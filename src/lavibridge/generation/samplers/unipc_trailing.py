"""UniPC whose last step begins a full step before the end, for few steps.

Zhao et al. 2023, arXiv 2302.04867; trailing times: Lin et al. 2023, arXiv 2305.08891.
"""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.generation.samplers.unipc import UniPC


class UniPCTrailing(UniPC):
    """UniPC with trailing times; a flow's steps are spaced by its shift, so there it is UniPC."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """UniPC with trailing times."""
        return diffusers.UniPCMultistepScheduler(**noise, timestep_spacing="trailing")
