"""Reads a model's prediction type, noise schedule and timestep shift from its Diffusers scheduler.

    diffusion    a scheduler with betas; its `prediction_type` is epsilon, v_prediction or sample
    flow         FlowMatchEulerDiscreteScheduler, or a multi-step one with `use_flow_sigmas`
    EDM          EDMEulerScheduler or EDMDPMSolverMultistepScheduler, read as a diffusion that predicts v

A flow model with a dynamic shift trains without a shift; sampling shifts larger images more.
"""

import inspect
import math
from typing import Any

import torch

from lavibridge.core.errors import ModelError
from lavibridge.diffusion.schedule import (
    EdmNoise,
    Schedule,
    StepSpacing,
    diffusion_schedule,
    dynamic_shift,
    edm_schedule,
    flow_schedule,
)

_FLOW_MATCHING = "FlowMatchEulerDiscreteScheduler"
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""The beta schedules that the samplers of Diffusers know by name."""

_NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
"""The scheduler settings that describe how a diffusion model was trained."""


def is_edm_scheduler(name: str) -> bool:
    """Whether the class of that name has the schedule of EDM."""
    return name in _EDM


def is_flow_scheduler(scheduler: Any) -> bool:
    """Whether the scheduler belongs to a flow model."""
    name = type(scheduler).__name__
    return name == _FLOW_MATCHING or bool(scheduler.config.get("use_flow_sigmas", False))


def scheduler_prediction_type(scheduler: Any, source: str) -> str:
    """Return the prediction type that a scheduler states. Raises ModelError if it is not supported."""
    settings, name = scheduler.config, type(scheduler).__name__
    if name == _FLOW_MATCHING:
        if settings.get("invert_sigmas", False):
            raise ModelError(f"'{source}' has inverted sigmas (invert_sigmas), which are not supported")
        return "flow"
    found = str(settings.get("prediction_type", "epsilon"))
    if is_flow_scheduler(scheduler):
        if found != "flow_prediction":
            raise ModelError(
                f"the scheduler of '{source}' has use_flow_sigmas and prediction_type '{found}': a flow "
                "model needs prediction_type flow_prediction"
            )
        return "flow"
    if is_edm_scheduler(name):
        if found not in ("epsilon", "v_prediction"):
            raise ModelError(
                f"the {name} of '{source}' has prediction_type '{found}': the schedule of EDM is supported "
                "with epsilon and v_prediction"
            )
        return "v_prediction"
    if "alphas_cumprod" not in vars(scheduler):
        raise ModelError(
            f"'{source}' has a {name}, whose noise schedule is not supported: choose a model with a "
            f"diffusion schedule or with {_FLOW_MATCHING}"
        )
    betas = settings.get("beta_schedule")
    if betas not in _BETAS and settings.get("trained_betas") is None:
        raise ModelError(
            f"the scheduler of '{source}' has beta_schedule '{betas}', which no sampler supports (they "
            f"support {', '.join(_BETAS)}): write its numbers into its configuration as trained_betas"
        )
    if found not in ("epsilon", "v_prediction", "sample"):
        raise ModelError(
            f"the scheduler of '{source}' has prediction_type '{found}': diffusion models are supported with "
            "epsilon, v_prediction and sample, flow models with flow_prediction and use_flow_sigmas"
        )
    return found


def scheduler_training_schedule(scheduler: Any) -> Schedule:
    """Return the noise schedule that a model was trained with."""
    steps = int(scheduler.config.num_train_timesteps)
    if is_edm_scheduler(type(scheduler).__name__):
        return edm_schedule(steps, edm_noise(scheduler))
    if not is_flow_scheduler(scheduler):
        return diffusion_schedule(scheduler.alphas_cumprod)
    return flow_schedule(steps, 1.0 if _is_dynamic(scheduler) else _fixed_shift(scheduler))


def scheduler_noise(scheduler: Any) -> dict[str, Any]:
    """Return how a diffusion model was trained, as arguments of a diffusion scheduler of Diffusers."""
    settings = scheduler.config
    if not is_edm_scheduler(type(scheduler).__name__):
        known = inspect.signature(type(scheduler)).parameters
        return {name: settings[name] for name in _NOISE if name in known}
    steps = int(settings.num_train_timesteps)
    share = edm_schedule(steps, edm_noise(scheduler)).alphas.double().square()
    before = torch.cat([torch.ones(1, dtype=torch.float64), share[:-1]])
    return {
        "num_train_timesteps": steps,
        "trained_betas": (1 - share / before).tolist(),
        "prediction_type": "v_prediction",
    }


def edm_noise(scheduler: Any) -> EdmNoise:
    """Return the noise levels of a scheduler with the schedule of EDM."""
    settings = scheduler.config
    return EdmNoise(
        lowest=float(settings.sigma_min),
        highest=float(settings.sigma_max),
        spacing=settings.sigma_schedule,
        latents=float(settings.sigma_data),
    )


def scheduler_sampling_shift(scheduler: Any, patches: int) -> float:
    """Return a flow model's timestep shift for an image of ``patches`` patches."""
    if not _is_dynamic(scheduler):
        return _fixed_shift(scheduler)
    settings = scheduler.config
    found = dynamic_shift(
        patches,
        at=(int(settings.base_image_seq_len), int(settings.max_image_seq_len)),
        shifts=(float(settings.base_shift), float(settings.max_shift)),
    )
    return math.exp(found) if settings.time_shift_type == "exponential" else found


def scheduler_step_spacing(scheduler: Any) -> StepSpacing:
    """Return how pipelines with this scheduler space the steps of a flow, unless they do it otherwise."""
    return "even" if _is_dynamic(scheduler) else "shifted"


def _is_dynamic(scheduler: Any) -> bool:
    """Whether the shift depends on the size of the image."""
    return type(scheduler).__name__ == _FLOW_MATCHING and bool(scheduler.config.use_dynamic_shifting)


def _fixed_shift(scheduler: Any) -> float:
    settings = scheduler.config
    return float(settings.shift if type(scheduler).__name__ == _FLOW_MATCHING else settings.flow_shift)
