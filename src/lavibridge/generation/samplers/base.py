"""The contract of a sampler: a Diffusers scheduler over the noise schedule of a model.

From the model's scheduler_config.json, a sampler takes only how the model was trained: the noise schedule
and the prediction type. The other settings there (spacing, offset, thresholding, clipping, final sigma,
solver order, Karras sigmas) belong to the scheduler that the model was published with, and mean something
else to another class.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lavibridge.core.errors import RecipeError
from lavibridge.diffusion.schedule import StepSpacing


class Sampler(ABC):
    """Makes a new scheduler for each batch, because a scheduler keeps the history of one batch.

    The scheduler has Diffusers' ``init_noise_sigma``, ``scale_model_input``, ``set_timesteps``,
    ``set_begin_index`` and ``step``, and needs one call of the denoiser a step.
    """

    @abstractmethod
    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """Make a Diffusers scheduler for a diffusion model.

        ``noise`` has the model's own noise schedule and prediction type: ``num_train_timesteps``,
        ``beta_start``, ``beta_end``, ``beta_schedule``, ``trained_betas``, ``rescale_betas_zero_snr`` and
        ``prediction_type``, as far as its scheduler has them. The first step must be at the model's last
        time, where the latents are noise alone.
        """

    def of_flow(self, noise: Mapping[str, Any], shift: float, spacing: StepSpacing) -> Any:
        """Make a Diffusers scheduler for a flow model. Raises RecipeError if the sampler does not support it.

        ``noise`` has ``num_train_timesteps``, and ``shift_terminal`` if the model's scheduler stretches the
        steps to end at that sigma. ``shift`` moves the sigmas towards noise. ``spacing`` says how the
        model's own pipeline spaces its steps; a multistep solver spaces them in its own way.
        """
        name = type(self).__module__.rpartition(".")[2]
        raise RecipeError(
            f"the sampler '{name}' supports only diffusion models, and this is a flow model: choose unipc, "
            "dpm or euler"
        )


def flow_sampler_settings(noise: Mapping[str, Any], shift: float) -> dict[str, Any]:
    """Arguments of Diffusers' multistep schedulers for a flow model."""
    return {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": shift,
        "num_train_timesteps": noise["num_train_timesteps"],
    }
