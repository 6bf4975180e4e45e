"""Noise schedules: the amount of signal and noise at each training time of a model.

    diffusion    alpha = sqrt(abar_t), sigma = sqrt(1 - abar_t)       time t = 0, 1, ..., T - 1
    flow         alpha = 1 - sigma, sigma = s u / (1 + (s - 1) u)     time T sigma,  u = 1/T, 2/T, ..., 1
    EDM          alpha = d / sqrt(s_t^2 + d^2), sigma = s_t / sqrt(s_t^2 + d^2)      time t = 0, 1, ..., T - 1

EDM adds noise of deviation s to latents of deviation d, and feeds the sum through 1 / sqrt(s^2 + d^2) (Karras
et al. 2022, arXiv 2206.00364). With latents divided by d that is a diffusion whose network predicts v:

    s_t = (a + u (b - a))^7,  a = s_min^(1/7),  b = s_max^(1/7),  u = t / (T - 1)          "karras"
    s_t = s_min^(1 - u) s_max^u                                                            "exponential"

`s` shifts a flow towards noise, more for a larger picture (Esser et al. 2024, arXiv 2403.03206). If it
depends on the picture, s or log s is linear in the number of patches.

Pipelines space N steps of a flow in four ways. Each lists values of u, from noise to image:

    even       1, 1 - 1/N, ..., 1/N
    shifted    even from 1 to s u_T / (1 + (s - 1) u_T) with u_T = 1/T, so that the shift acts twice
    whole      even from 1 to 1/T, cut to whole times T u
    karras     s / (1 + s) for N values s of EDM from 80 to 0.002, spaced by "karras"
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

StepSpacing = Literal["even", "shifted", "whole", "karras"]
"""How a pipeline spaces the steps of a flow."""
_RHO = 7
"""Karras et al. 2022, table 1."""


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


@dataclass(frozen=True, kw_only=True)
class EdmNoise:
    """The noise levels that a model with the schedule of EDM was trained with."""

    lowest: float = 0.002
    """Standard deviation of the noise at the first time."""
    highest: float = 80.0
    """Standard deviation of the noise at the last time."""
    spacing: Literal["karras", "exponential"] = "karras"
    latents: float = 0.5
    """Standard deviation of the latents."""

    def at(self, place: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return the standard deviation of the noise at places in [0, 1], which are t / (T - 1)."""
        if self.spacing == "exponential":
            return self.lowest ** (1 - place) * self.highest**place
        low, high = self.lowest ** (1 / _RHO), self.highest ** (1 / _RHO)
        return (low + place * (high - low)) ** _RHO


def edm_schedule(steps: int, noise: EdmNoise) -> Schedule:
    """Return the schedule of a model trained as in EDM, for latents divided by ``noise.latents``."""
    levels = noise.at(torch.linspace(0, 1, steps, dtype=torch.float64))
    norm = (levels.square() + noise.latents**2).sqrt()
    return Schedule(
        alphas=(noise.latents / norm).float(),
        sigmas=(levels / norm).float(),
        times=torch.arange(steps, dtype=torch.float32),
    )


def dynamic_shift(patches: int, at: tuple[int, int], shifts: tuple[float, float]) -> float:
    """Interpolate linearly: ``shifts`` are the values at the two numbers of patches ``at``."""
    return shifts[0] + (shifts[1] - shifts[0]) / (at[1] - at[0]) * (patches - at[0])
