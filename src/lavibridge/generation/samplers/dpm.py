"""DPM-Solver++ of second order: Lu et al. 2022, arXiv 2211.01095."""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.diffusion.schedule import StepSpacing
from lavibridge.generation.samplers.base import Sampler, flow_sampler_settings


class DPM(Sampler):
    """A multistep solver of the diffusion ODE."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make DPM-Solver++ with evenly spaced times."""
        return diffusers.DPMSolverMultistepScheduler(**noise, timestep_spacing="linspace")

    def of_flow(self, noise: Mapping[str, Any], shift: float, spacing: StepSpacing) -> Any:
        """Make DPM-Solver++ over shifted sigmas."""
        return diffusers.DPMSolverMultistepScheduler(**flow_sampler_settings(noise, shift))
