"""Euler's method: Karras et al. 2022, arXiv 2206.00364; for flows, Esser et al. 2024, arXiv 2403.03206."""

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from lavibridge.diffusion.schedule import EdmNoise, StepSpacing
from lavibridge.generation.samplers.base import Sampler

_EDM = EdmNoise()


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


class KarrasFlowEuler(FlowEuler):
    """Euler steps over the noise levels of EDM; the last step ends at the lowest level, not at zero.

    A flow from noise of deviation s to none is EDM's sum of latents and noise, divided by 1 + s.
    """

    init_noise_sigma = float(_EDM.at(torch.ones(())) / (1 + _EDM.at(torch.ones(()))))

    def set_timesteps(self, steps: int) -> None:
        """Set the times of ``steps`` steps, starting at the highest noise level."""
        levels = _EDM.at(torch.linspace(1, 0, steps, dtype=torch.float64))
        super().set_timesteps(sigmas=(levels / (1 + levels)).numpy())
        self.sigmas[-1] = self.sigmas[-2]


_FLOWS: Mapping[StepSpacing, type[FlowEuler]] = {
    "even": EvenFlowEuler,
    "shifted": FlowEuler,
    "whole": WholeFlowEuler,
    "karras": KarrasFlowEuler,
}
