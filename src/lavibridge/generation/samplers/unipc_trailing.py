"""UniPC with trailing times, for few steps: its last step starts a full step before the end.

Zhao et al. 2023, arXiv 2302.04867; trailing times: Lin et al. 2023, arXiv 2305.08891.
"""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.generation.samplers.unipc import UniPC


class UniPCTrailing(UniPC):
    """UniPC with trailing times; for flows it equals UniPC, because their shift spaces the steps."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make UniPC with trailing times."""
        return diffusers.UniPCMultistepScheduler(**noise, timestep_spacing="trailing")
