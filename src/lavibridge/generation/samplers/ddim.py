"""DDIM, deterministic: Song et al. 2020, arXiv 2010.02502."""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.generation.samplers.base import Sampler


class DDIM(Sampler):
    """DDIM as first-order DPM-Solver++.

    Diffusers' own DDIM always steps down by T // steps, which misses the next time if T / steps is no
    whole number.
    """

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make DDIM with trailing times."""
        return diffusers.DPMSolverMultistepScheduler(**noise, solver_order=1, timestep_spacing="trailing")
