"""Euler's method: Karras et al. 2022, arXiv 2206.00364; for flows, Esser et al. 2024, arXiv 2403.03206."""

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
from torch import Tensor

from lavibridge.diffusion.schedule import StepSpacing
from lavibridge.generation.samplers.base import Sampler


class Euler(Sampler):
    """One evaluation of the denoiser a step, first order."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make Euler's method with trailing times."""
        return diffusers.EulerDiscreteScheduler(**noise, timestep_spacing="trailing")

    def of_flow(self, noise: Mapping[str, Any], shift: float, spacing: StepSpacing) -> Any:
        """Make Euler's method over shifted sigmas, with the steps of the model's own pipeline."""
        return _FLOWS[spacing](shift=shift, **noise)


class FlowEuler(diffusers.FlowMatchEulerDiscreteScheduler):
    """Euler's method for flows, with the attributes of diffusion schedulers that `Sampling` reads."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Return the latents unchanged."""
        return sample


class EvenFlowEuler(FlowEuler):
    """Euler steps that are even before the shift."""

    def set_timesteps(self, steps: int) -> None:
        """Set the times of ``steps`` steps, starting at pure noise."""
        super().set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))


class WholeFlowEuler(FlowEuler):
    """Euler steps at whole times before the shift, down to time 1."""

    def set_timesteps(self, steps: int) -> None:
        """Set the times of ``steps`` steps, starting at pure noise."""
        times = int(self.config.num_train_timesteps)
        super().set_timesteps(sigmas=np.linspace(times, 1, steps).astype(int) / times)


_FLOWS: Mapping[StepSpacing, type[FlowEuler]] = {
    "even": EvenFlowEuler,
    "shifted": FlowEuler,
    "whole": WholeFlowEuler,
}
