"""The training objective: how latents are corrupted, what is to be predicted, how losses are weighted.

    xt = alpha x0 + sigma eps,   alpha = sqrt(abar), sigma = sqrt(1 - abar),   snr = alpha^2 / sigma^2
    target    epsilon: eps      v_prediction: alpha eps - sigma x0      sample: x0
    weight    uniform: 1        else, on the error of x0:  min_snr: min(snr, gamma)   velocity: snr + 1
              divided by snr, by snr + 1, or by 1 for the error of the three targets

`velocity` counts the error of alpha eps - sigma x0 whatever is predicted. More than `uniform` for epsilon, it
looks at the noisiest times, where it is decided what is in the picture.

Ho et al. 2020 (epsilon), arXiv 2006.11239; Salimans and Ho 2022 (v), arXiv 2202.00512; Hang et al. 2023
(min-SNR), arXiv 2303.09556.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import ModelError, RecipeError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
WEIGHTINGS = ("uniform", "min_snr", "velocity")
MOST_VELOCITY = 20.0
"""Largest weight that `velocity` gives to an error of epsilon: reached where 5 % of the signal is left."""


def corrupt(
    x0: Float[Tensor, "batch channel h w"],
    noise: Float[Tensor, "batch channel h w"],
    alpha_bar: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channel h w"]:
    """Noisy latents at the signal shares ``alpha_bar`` (0: noise only, 1: signal only)."""
    alpha, sigma = _alpha_sigma(alpha_bar)
    return alpha * x0 + sigma * noise


def target(
    prediction_type: str,
    x0: Float[Tensor, "batch channel h w"],
    noise: Float[Tensor, "batch channel h w"],
    alpha_bar: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channel h w"]:
    """What the denoiser should predict."""
    alpha, sigma = _alpha_sigma(alpha_bar)
    match _known(prediction_type):
        case "epsilon":
            return noise
        case "v_prediction":
            return alpha * noise - sigma * x0
        case _:
            return x0


def predict_x0(
    prediction_type: str,
    prediction: Float[Tensor, "batch channel h w"],
    xt: Float[Tensor, "batch channel h w"],
    alpha_bar: Float[Tensor, " batch"],
) -> Float[Tensor, "batch channel h w"]:
    """The clean latents that a prediction implies."""
    alpha, sigma = _alpha_sigma(alpha_bar)
    match _known(prediction_type):
        case "epsilon":
            return (xt - sigma * prediction) / alpha
        case "v_prediction":
            return alpha * xt - sigma * prediction
        case _:
            return prediction


def weight(
    kind: str, gamma: float, snr: Float[Tensor, " batch"], prediction_type: str
) -> Float[Tensor, " batch"]:
    """The weight of each sample's squared error."""
    if kind not in WEIGHTINGS:
        raise RecipeError(
            f"there is no weighting '{kind}'{did_you_mean(kind, WEIGHTINGS)} (known: {', '.join(WEIGHTINGS)})"
        )
    if kind == "uniform":
        return torch.ones_like(snr)
    of_x0 = snr.clamp(max=gamma) if kind == "min_snr" else torch.minimum(snr + 1, MOST_VELOCITY * snr)
    match _known(prediction_type):
        case "epsilon":
            return of_x0 / snr
        case "v_prediction":
            return of_x0 / (snr + 1)
        case _:
            return of_x0


def snr(alpha_bar: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Signal-to-noise ratio; kept above zero, so that a schedule that ends in pure noise divides safely."""
    return (alpha_bar / (1 - alpha_bar)).clamp(min=1e-8)


def _alpha_sigma(
    alpha_bar: Float[Tensor, " batch"],
) -> tuple[Float[Tensor, "batch 1 1 1"], Float[Tensor, "batch 1 1 1"]]:
    shaped = alpha_bar[:, None, None, None]
    return shaped.sqrt(), (1 - shaped).sqrt()


def _known(prediction_type: str) -> str:
    if prediction_type not in PREDICTION_TYPES:
        raise ModelError(
            f"there is no prediction type '{prediction_type}' (there are {', '.join(PREDICTION_TYPES)})"
        )
    return prediction_type
