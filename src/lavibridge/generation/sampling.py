"""From noise to latents with Diffusers' samplers, and from there to pictures.

    xT ~ N(0, 1), from each picture's own seed;  for t in timesteps: xt <- step(predict(xt, t), t, xt)

The samplers are deterministic, and every picture has its own seed, so that the batch changes a picture by
rounding only: by up to one grey level in float32. In bfloat16 it is a few grey levels, and more where a
model is unsteady (docs/decisions/0019). Pictures of the server keep their bits (0011).
Every sampler begins at the model's last time, where there is nothing but noise, and takes even steps in time.
Flow models are sampled over sigmas that are shifted towards noise (diffusion/schedule.py), and never by DDIM.

Each sampler is a file of `samplers/`.
"""

import inspect
import warnings
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.vision.parts.scheduler_settings import is_flow_scheduler

SAMPLER_PACKAGE = "generation.samplers"
_NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
"""The settings of a diffusion model's scheduler that say how it was trained."""


def check_sampling_steps(steps: int, times: int, name: str = "num_inference_steps") -> None:
    """RecipeError where there are no steps, or more than the ``times`` that a model was trained at."""
    if not 1 <= steps <= times:
        raise RecipeError(
            f"{name} must be 1 to {times}, as this model was trained at {times} times; found {steps}"
        )


def make_sampler(scheduler: Any, sampler: str = "unipc", shift: float | None = None) -> Any:
    """A fresh sampler over the noise schedule of a model's own scheduler.

    ``shift`` is that of a flow model for the picture's size (`VisionModel.flow_shift`), None for a diffusion
    model. Raises RecipeError for a sampler that is unknown, or does not go with a flow.
    """
    made = registry.load_kind(SAMPLER_PACKAGE, sampler)()
    if is_flow_scheduler(scheduler) != (shift is not None):
        raise ValueError("a flow is sampled with its shift, a diffusion model with none: give flow_shift()")
    settings = scheduler.config
    if shift is not None:
        times = {"num_train_timesteps": settings.num_train_timesteps}
        return made.of_flow(times, shift, bool(settings.get("use_dynamic_shifting", False)))
    known = inspect.signature(type(scheduler)).parameters
    return made.of_diffusion({name: settings[name] for name in _NOISE if name in known})


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
    check_sampling_steps(steps, times)
    if steps == times and "timestep_spacing" in scheduler.config:  # every time once; linspace has some twice
        scheduler.register_to_config(timestep_spacing="trailing")
    with warnings.catch_warnings():
        # Diffusers reads torch tensors by a NumPy call that NumPy 2 warns of; nothing here depends on it.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) > steps + 1:
        raise RecipeError(
            f"{type(scheduler).__name__} has {len(scheduler.timesteps)} times for {steps} steps, as it calls "
            "the denoiser more than once a step: a sampler has to call it once"
        )
    if len(scheduler.timesteps) > steps:  # trailing: T / steps was rounded, and one step is left at time -1
        scheduler.timesteps = scheduler.timesteps[:steps]
        scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
        scheduler.num_inference_steps = steps
    scheduler.set_begin_index(0)  # times of many steps of a flow round alike, and are not to be looked up
