"""Turns noise into latents with Diffusers' schedulers.

    xT ~ N(0, 1), from each image's own seed;  for t in timesteps: xt <- step(predict(xt, t), t, xt)

The samplers are deterministic and every image has its own seed, so the batch changes an image by rounding
only: by up to one grey level in float32, by a few in bfloat16, and by more if a model is unstable
(docs/decisions/0019). On the server an image has the same bits in any batch (docs/decisions/0011).
Every sampler starts at the model's last time, where the latents are noise alone, and takes even steps in
time, save `dpm_karras`. For flow models the sigmas are shifted towards noise (diffusion/schedule.py); DDIM
and `dpm_karras` do not support them.

Each sampler is a file in `samplers/`.
"""

import warnings
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.diffusion.schedule import StepSpacing
from lavibridge.vision.parts.scheduler_settings import (
    is_flow_scheduler,
    scheduler_noise,
    scheduler_step_spacing,
)

SAMPLER_PACKAGE = "generation.samplers"


def check_sampling_steps(steps: int, times: int, name: str = "num_inference_steps") -> None:
    """Raise RecipeError unless ``steps`` is from 1 to ``times``, the number of times of the training."""
    if not 1 <= steps <= times:
        raise RecipeError(
            f"{name} must be from 1 to {times}: this model was trained at {times} times; found {steps}"
        )


def make_sampler(
    scheduler: Any,
    sampler: str = "unipc",
    shift: float | None = None,
    spacing: StepSpacing | None = None,
) -> Any:
    """Make a new scheduler of the kind ``sampler`` with the noise schedule of the model's own scheduler.

    ``shift`` is a flow model's shift for the image's size (`VisionModel.flow_shift`), and None for a
    diffusion model. ``spacing`` is `VisionModel.step_spacing`; None: what is usual for the scheduler.
    Raises RecipeError if the sampler is unknown or does not support flow models.
    """
    made = registry.load_kind(SAMPLER_PACKAGE, sampler)()
    if is_flow_scheduler(scheduler) != (shift is not None):
        raise ValueError("a flow model needs a shift and a diffusion model takes none: pass flow_shift()")
    if shift is not None:
        settings, names = scheduler.config, ("num_train_timesteps", "shift_terminal")
        times = {name: settings[name] for name in names if settings.get(name)}
        return made.of_flow(times, shift, spacing or scheduler_step_spacing(scheduler))
    return made.of_diffusion(scheduler_noise(scheduler))


class Sampling:
    """Latents in the middle of denoising, and their scheduler, which no other latents may share.

    while not sampling.is_finished:
        sampling.take(predict(sampling.noisy, sampling.t))
    """

    def __init__(self, scheduler: Any, noise: Float[Tensor, "batch channel h w"], steps: int) -> None:
        """Raises RecipeError if there are more steps than the model has times."""
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
        """Take one step, given the denoiser's prediction for ``noisy`` at ``t``."""
        latents = self.scheduler.step(prediction, self.t, self.latents, return_dict=False)[0]
        self.step += 1
        self.replace(latents)

    def replace(self, latents: Float[Tensor, "batch channel h w"]) -> None:
        """Continue from other latents."""
        self.latents = latents
        if not self.is_finished:
            self.noisy = self.scheduler.scale_model_input(latents, self.t)
            """The latents, scaled for the denoiser."""


def _spread(scheduler: Any, steps: int) -> None:
    """Set the scheduler's times. Raises RecipeError if there are more steps than times."""
    times = int(scheduler.config.num_train_timesteps)
    check_sampling_steps(steps, times)
    if steps == times and "timestep_spacing" in scheduler.config:  # every time once; linspace has some twice
        scheduler.register_to_config(timestep_spacing="trailing")
    with warnings.catch_warnings():
        # Diffusers converts torch tensors with a NumPy call that is deprecated in NumPy 2.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) > steps + 1:
        raise RecipeError(
            f"{type(scheduler).__name__} has {len(scheduler.timesteps)} times for {steps} steps, because it "
            "calls the denoiser more than once a step: choose a scheduler that calls it once"
        )
    if len(scheduler.timesteps) > steps:  # trailing: T / steps was rounded, and one step is left at time -1
        scheduler.timesteps = scheduler.timesteps[:steps]
        scheduler.sigmas = torch.cat([scheduler.sigmas[:steps], scheduler.sigmas[-1:]])
        scheduler.num_inference_steps = steps
    scheduler.set_begin_index(0)  # times of a flow may round to the same value: never look a step up by time
