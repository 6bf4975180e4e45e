"""DDIM, deterministic: Song et al. 2020, arXiv 2010.02502."""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.generation.samplers.base import Sampler


class DDIM(Sampler):
    """The first order of DPM-Solver++: Diffusers' own DDIM steps down by T // steps, past the next time."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """DDIM with trailing times."""
        return diffusers.DPMSolverMultistepScheduler(**noise, solver_order=1, timestep_spacing="trailing")
