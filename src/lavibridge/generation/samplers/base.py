"""The contract of a sampler: a Diffusers scheduler over the noise schedule of a model.

A sampler takes from the model's scheduler_config.json how the model was trained: its noise schedule and what
it predicts. All other settings there (spacing, offset, thresholding, clipping, final sigma, solver order,
Karras sigmas) belong to the scheduler that the model was published with, and another class reads them in
another way.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lavibridge.core.errors import RecipeError


class Sampler(ABC):
    """Makes a fresh scheduler for each batch, as a scheduler keeps the history of one.

    The scheduler has Diffusers' ``init_noise_sigma``, ``scale_model_input``, ``set_timesteps``,
    ``set_begin_index`` and ``step``, and calls the denoiser once a step.
    """

    @abstractmethod
    def of_diffusion(self, noise: Mapping[str, Any]) -> Any:
        """A Diffusers scheduler for a diffusion model.

        ``noise`` has those of `sample.NOISE` that the model's own scheduler states, such as ``beta_start``,
        ``prediction_type`` and ``rescale_betas_zero_snr``. The steps begin at the model's last time, where
        the latents are noise alone.
        """

    def of_flow(self, noise: Mapping[str, Any], shift: float, is_dynamic: bool) -> Any:
        """A Diffusers scheduler for a flow model; RecipeError if the sampler does not go with flows.

        ``noise`` has ``num_train_timesteps``, and ``shift`` moves the sigmas towards noise. ``is_dynamic``
        says whether the model's own scheduler computes the shift from the picture's size.
        """
        name = type(self).__module__.rpartition(".")[2]
        raise RecipeError(
            f"the sampler '{name}' is for diffusion models, and this model is a flow: choose unipc, dpm or "
            "euler"
        )


def flow_sampler_settings(noise: Mapping[str, Any], shift: float) -> dict[str, Any]:
    """Arguments of the multistep schedulers of Diffusers for a flow model."""
    return {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift, **noise}
