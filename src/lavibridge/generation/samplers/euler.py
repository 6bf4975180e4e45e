"""Euler's method: Karras et al. 2022, arXiv 2206.00364; of flows, Esser et al. 2024, arXiv 2403.03206."""

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
from torch import Tensor

from lavibridge.generation.samplers.base import Sampler


class Euler(Sampler):
    """One evaluation of the denoiser a step, first order."""

    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Euler steps with trailing times."""
        return diffusers.EulerDiscreteScheduler(**noise, timestep_spacing="trailing")

    def of_flow(self, noise: Mapping[str, Any], shift: float, is_dynamic: bool) -> Any:
        """Euler steps over shifted sigmas."""
        return (EvenFlowEuler if is_dynamic else FlowEuler)(shift=shift, **noise)


class FlowEuler(diffusers.FlowMatchEulerDiscreteScheduler):
    """Euler steps of a flow, with what `Sampling` calls of every sampler."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The latents as they are."""
        return sample


class EvenFlowEuler(FlowEuler):
    """Euler steps that are even before they are shifted, as models with a dynamic shift are sampled."""

    def set_timesteps(self, steps: int) -> None:
        """From pure noise in ``steps`` steps."""
        super().set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
