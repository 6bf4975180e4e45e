"""Noise schedules: the amount of signal and noise at each training time of a model.

    diffusion    alpha = sqrt(abar_t), sigma = sqrt(1 - abar_t)       time t = 0, 1, ..., T - 1
    flow         alpha = 1 - sigma, sigma = s u / (1 + (s - 1) u)     time T sigma,  u = 1/T, 2/T, ..., 1

`s` shifts a flow towards noise, more for a larger picture (Esser et al. 2024, arXiv 2403.03206). If it
depends on the picture, s or log s is linear in the number of patches.

Pipelines space N steps of a flow in three ways. Each lists values of u, from noise to image:

    even       1, 1 - 1/N, ..., 1/N
    shifted    even from 1 to s u_T / (1 + (s - 1) u_T) with u_T = 1/T, so that the shift acts twice
    whole      even from 1 to 1/T, cut to whole times T u
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

StepSpacing = Literal["even", "shifted", "whole"]
"""How a pipeline spaces the steps of a flow."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Signal, noise and the model's time at each training step of the schedule, all float32."""

    alphas: Float[Tensor, " step"]
    sigmas: Float[Tensor, " step"]
    times: Float[Tensor, " step"]


def diffusion_schedule(alphas_cumprod: Float[Tensor, " step"]) -> Schedule:
    """Return the schedule of a diffusion model, from the cumulative product of its alphas."""
    share = alphas_cumprod.float()
    return Schedule(
        alphas=share.sqrt(), sigmas=(1 - share).sqrt(), times=torch.arange(len(share), dtype=torch.float32)
    )


def flow_schedule(steps: int, shift: float) -> Schedule:
    """Return the schedule of a flow model with ``steps`` training times."""
    even = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    sigmas = (shift * even / (1 + (shift - 1) * even)).float()
    return Schedule(alphas=1 - sigmas, sigmas=sigmas, times=steps * sigmas)


def dynamic_shift(patches: int, at: tuple[int, int], shifts: tuple[float, float]) -> float:
    """Interpolate linearly: ``shifts`` are the values at the two numbers of patches ``at``."""
    return shifts[0] + (shifts[1] - shifts[0]) / (at[1] - at[0]) * (patches - at[0])
