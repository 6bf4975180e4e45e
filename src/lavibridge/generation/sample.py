"""From noise to latents with Diffusers' samplers, and from there to pictures.

    xT ~ N(0, 1), from each picture's own seed;  for t in timesteps: xt <- step(predict(xt, t), t, xt)

The samplers are deterministic, and every picture has its own seed, so that the batch changes a picture by
rounding only: by up to one grey level in float32. In bfloat16 it is a few grey levels, and more where a
model is unsteady (docs/decisions/0019). Pictures of the server keep their bits (0011).
Flow models are sampled over sigmas that are shifted towards noise (diffusion/schedule.py), and never by DDIM.

UniPC: Zhao et al. 2023, arXiv 2302.04867; trailing, its steps are spread evenly from the last time on, and
few of them go further (Lin et al. 2023, arXiv 2305.08891). DDIM: Song et al. 2020, arXiv 2010.02502. DPM-
Solver++: Lu et al. 2022, arXiv 2211.01095. Euler: Karras et al. 2022, arXiv 2206.00364; of flows, Esser et
al. 2024, arXiv 2403.03206.
"""

import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

import diffusers
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.vision.parts.schedules import is_flow

SAMPLERS = ("unipc", "unipc_trailing", "ddim", "dpm", "euler")
Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents, timestep as a scalar tensor) -> the denoiser's prediction, guidance included."""


class FlowEuler(diffusers.FlowMatchEulerDiscreteScheduler):
    """Euler steps of a flow, with what `sample` asks of every sampler."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The latents as they are."""
        return sample


class EvenFlowEuler(FlowEuler):
    """Euler steps that are even before they are shifted, as models with a dynamic shift are sampled."""

    def set_timesteps(self, steps: int) -> None:
        """From pure noise in ``steps`` steps."""
        super().set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))


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
    if shift is None:
        return _of_diffusion(scheduler.config, sampler)
    return _of_flow(scheduler.config, sampler, shift)


def _of_diffusion(settings: Any, sampler: str) -> Any:
    match sampler:
        case "unipc":
            return diffusers.UniPCMultistepScheduler.from_config(settings)
        case "unipc_trailing":
            return diffusers.UniPCMultistepScheduler.from_config(settings, timestep_spacing="trailing")
        case "ddim":
            # Clipping is for pixels in [-1, 1]; latents have no such range.
            return diffusers.DDIMScheduler.from_config(settings, clip_sample=False)
        case "euler":
            return diffusers.EulerDiscreteScheduler.from_config(settings)
        case _:
            return diffusers.DPMSolverMultistepScheduler.from_config(
                settings, algorithm_type="dpmsolver++", thresholding=False
            )


def _of_flow(settings: Any, sampler: str, shift: float) -> Any:
    flow = {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": shift,
        "use_dynamic_shifting": False,
    }
    match sampler:
        case "unipc" | "unipc_trailing":  # a flow's steps are spaced by its shift
            return diffusers.UniPCMultistepScheduler.from_config(settings, **flow)
        case "dpm":
            return diffusers.DPMSolverMultistepScheduler.from_config(
                settings, **flow, algorithm_type="dpmsolver++", thresholding=False
            )
        case "euler":
            chosen = EvenFlowEuler if settings.get("use_dynamic_shifting", False) else FlowEuler
            return chosen.from_config(settings, shift=shift, use_dynamic_shifting=False)
    raise RecipeError(
        f"the sampler '{sampler}' is for diffusion models, and this model is a flow: choose unipc, dpm or "
        "euler"
    )


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Float[Tensor, "batch channel h w"]:
    """Noise for each seed, made on the CPU so that it is the same on every device."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def sample(
    predict: Predict,
    scheduler: Any,
    noise: Float[Tensor, "batch channel h w"],
    steps: int,
    on_step: Callable[[], None] | None = None,
) -> Float[Tensor, "batch channel h w"]:
    """Latents after ``steps`` steps from ``noise``; ``on_step`` is called after each.

    A sampler keeps the history of one batch, so it is set anew here and must not be shared between threads.
    """
    going = sampling(scheduler, noise, steps)
    noisy, t = next(going)
    while True:
        try:
            asked = going.send(predict(noisy, t))
        except StopIteration as end:
            asked = None
            latents: Tensor = end.value
        if on_step is not None:
            on_step()
        if asked is None:
            return latents
        noisy, t = asked


def sampling(
    scheduler: Any, noise: Float[Tensor, "batch channel h w"], steps: int
) -> Generator[tuple[Tensor, Tensor], Tensor, Tensor]:
    """The same a step at a time: yields (noisy latents, t), is sent the prediction, returns the latents."""
    with warnings.catch_warnings():
        # Diffusers reads torch tensors by a NumPy call that NumPy 2 warns of; nothing here depends on it.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler.set_timesteps(steps)
    xt = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        prediction = yield scheduler.scale_model_input(xt, t), t
        xt = scheduler.step(prediction, t, xt, return_dict=False)[0]
    return xt


def to_images(pictures: Float[Tensor, "batch 3 height width"]) -> list[Image.Image]:
    """RGB pictures of 8 bits from values in [-1, 1]; what lies outside is clipped."""
    levels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    arrays = levels.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]
