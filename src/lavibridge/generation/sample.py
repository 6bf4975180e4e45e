"""From noise to latents with Diffusers' samplers, and from there to pictures.

    xT ~ N(0, 1), from each picture's own seed;  for t in timesteps: xt <- step(predict(xt, t), t, xt)

The samplers are deterministic, and every picture has its own seed, so that the batch changes a picture by
rounding only: by up to one grey level in float32. In bfloat16 it is a few grey levels, and more where a
model is unsteady (docs/decisions/0019). Pictures of the server keep their bits (0011).
Every sampler begins at the model's last time, where there is nothing but noise, and takes even steps in time.
Flow models are sampled over sigmas that are shifted towards noise (diffusion/schedule.py), and never by DDIM.

A sampler takes the noise schedule and what is predicted from the model's scheduler_config.json, and nothing
else: the other settings there (spacing, offset, thresholding, clipping, final sigma, solver order, Karras
sigmas) belong to the scheduler that the model was published with, and mean other things to another class.

UniPC: Zhao et al. 2023, arXiv 2302.04867; trailing, its last step begins a full step before the end (Lin et
al. 2023, arXiv 2305.08891). DDIM: Song et al. 2020, arXiv 2010.02502. DPM-Solver++, whose first order is
DDIM: Lu et al. 2022, arXiv 2211.01095. Euler: Karras et al. 2022, arXiv 2206.00364; of flows, Esser et al.
2024, arXiv 2403.03206.
"""

import inspect
import warnings
from typing import Any

import diffusers
import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.vision.parts.schedules import is_flow

SAMPLERS = ("unipc", "unipc_trailing", "ddim", "dpm", "euler")
NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
"""The settings of a diffusion model's scheduler that say how it was trained."""


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


def check_steps(steps: int, times: int, name: str = "num_inference_steps") -> None:
    """RecipeError where there are no steps, or more than the ``times`` that a model was trained at."""
    if not 1 <= steps <= times:
        raise RecipeError(
            f"{name} must be 1 to {times}, as this model was trained at {times} times; found {steps}"
        )


def make_scheduler(scheduler: Any, sampler: str = "unipc", shift: float | None = None) -> Any:
    """A fresh sampler over the noise schedule of a model's own scheduler.

    ``shift`` is that of a flow model for the picture's size (`VisionModel.flow_shift`), None for a diffusion
    model. Raises RecipeError for a sampler that is unknown, or does not go with a flow.
    """
    if sampler not in SAMPLERS:
        raise RecipeError(
            f"there is no sampler '{sampler}'{did_you_mean(sampler, SAMPLERS)} "
            f"(there are {', '.join(SAMPLERS)})"
        )
    if is_flow(scheduler) != (shift is not None):
        raise ValueError("a flow is sampled with its shift, a diffusion model with none: give flow_shift()")
    return _of_diffusion(scheduler, sampler) if shift is None else _of_flow(scheduler, sampler, shift)


def _of_diffusion(scheduler: Any, sampler: str) -> Any:
    known = inspect.signature(type(scheduler)).parameters
    noise = {name: scheduler.config[name] for name in NOISE if name in known}
    match sampler:
        case "unipc":
            return diffusers.UniPCMultistepScheduler(**noise, timestep_spacing="linspace")
        case "unipc_trailing":
            return diffusers.UniPCMultistepScheduler(**noise, timestep_spacing="trailing")
        case "ddim":
            # Diffusers' own DDIM steps down by T // steps, wherever the next time lies.
            return diffusers.DPMSolverMultistepScheduler(**noise, solver_order=1, timestep_spacing="trailing")
        case "euler":
            return diffusers.EulerDiscreteScheduler(**noise, timestep_spacing="trailing")
        case _:
            return diffusers.DPMSolverMultistepScheduler(**noise, timestep_spacing="linspace")


def _of_flow(scheduler: Any, sampler: str, shift: float) -> Any:
    settings = scheduler.config
    times = {"num_train_timesteps": settings.num_train_timesteps}
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift, **times}
    match sampler:
        case "unipc" | "unipc_trailing":  # a flow's steps are spaced by its shift
            return diffusers.UniPCMultistepScheduler(**flow)
        case "dpm":
            return diffusers.DPMSolverMultistepScheduler(**flow)
        case "euler":
            chosen = EvenFlowEuler if settings.get("use_dynamic_shifting", False) else FlowEuler
            return chosen(shift=shift, **times)
    raise RecipeError(
        f"the sampler '{sampler}' is for diffusion models, and this model is a flow: choose unipc, dpm or "
        "euler"
    )


class Sampling:
    """Latents on their way from noise under one sampler, which nobody else may use meanwhile.

    while not sampling.is_finished:
        sampling.take(predict(sampling.noisy, sampling.t))
    """

    def __init__(self, scheduler: Any, noise: Float[Tensor, "batch channel h w"], steps: int) -> None:
        """Raises RecipeError where there are more steps than the model has times."""
        _spread(scheduler, steps)
        self.scheduler, self.steps = scheduler, steps
        self.step = 0
        """Steps taken so far."""
        self.replace(noise * scheduler.init_noise_sigma)

    @property
    def is_finished(self) -> bool:
        """Whether every step is taken."""
        return self.step == self.steps

    @property
    def t(self) -> Num[Tensor, ""]:
        """The time of the next step."""
        return self.scheduler.timesteps[self.step]

    def take(self, prediction: Float[Tensor, "batch channel h w"]) -> None:
        """Take one step with what the denoiser predicts for ``noisy`` at ``t``."""
        latents = self.scheduler.step(prediction, self.t, self.latents, return_dict=False)[0]
        self.step += 1
        self.replace(latents)

    def replace(self, latents: Float[Tensor, "batch channel h w"]) -> None:
        """Go on from other latents."""
        self.latents = latents
        if not self.is_finished:
            self.noisy = self.scheduler.scale_model_input(latents, self.t)
            """The latents as the denoiser takes them."""


def _spread(scheduler: Any, steps: int) -> None:
    """Set the times of the steps; RecipeError where there are more steps than times."""
    times = int(scheduler.config.num_train_timesteps)
    check_steps(steps, times)
    if steps == times and "timestep_spacing" in scheduler.config:  # every time once; linspace has some twice
        scheduler.register_to_config(timestep_spacing="trailing")
    with warnings.catch_warnings():
        # Diffusers reads torch tensors by a NumPy call that NumPy 2 warns of; nothing here depends on it.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) > steps:  # trailing: T / steps was rounded, and one step is left at time -1
        scheduler.timesteps = scheduler.timesteps[:steps]
        scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
        scheduler.num_inference_steps = steps
    scheduler.set_begin_index(0)  # times of many steps of a flow round alike, and are not to be looked up
