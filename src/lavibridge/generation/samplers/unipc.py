"""UniPC over evenly spaced times: Zhao et al. 2023, arXiv 2302.04867."""

from collections.abc import Mapping
from typing import Any

import diffusers

from lavibridge.diffusion.schedule import StepSpacing
from lavibridge.generation.samplers.base import Sampler, flow_sampler_settings


class UniPC(Sampler):
    """A predictor-corrector of second order."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make UniPC with evenly spaced times."""
        return diffusers.UniPCMultistepScheduler(**noise, timestep_spacing="linspace")

    def of_flow(self, noise: Mapping[str, Any], shift: float, spacing: StepSpacing) -> Any:
        """Make UniPC over shifted sigmas."""
        return diffusers.UniPCMultistepScheduler(**flow_sampler_settings(noise, shift))
