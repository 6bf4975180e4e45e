"""The training objective: how latents are corrupted, what is to be predicted, how losses are weighted.

    xt = alpha x0 + sigma eps        snr = alpha^2 / sigma^2        (alpha, sigma: see diffusion/schedule.py)
    target    epsilon: eps      v_prediction: alpha eps - sigma x0      sample: x0      flow: eps - x0
    weight    uniform: 1        else, on the error of x0:  min_snr: min(snr, gamma)   velocity: snr + 1
              divided by snr, by snr + 1, by 1 or by 1 / sigma^2 for the error of the four targets

`velocity` counts the error of alpha eps - sigma x0 whatever is predicted. More than `uniform` for epsilon, it
looks at the noisiest times, where it is decided what is in the picture. A flow has alpha + sigma = 1.

Ho et al. 2020 (epsilon), arXiv 2006.11239; Salimans and Ho 2022 (v), arXiv 2202.00512; Hang et al. 2023
(min-SNR), arXiv 2303.09556; Lipman et al. 2022 (flow), arXiv 2210.02747.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import ModelError, RecipeError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")
WEIGHTINGS = ("uniform", "min_snr", "velocity")
MOST_VELOCITY = 20.0
"""Largest weight that `velocity` gives to an error of epsilon: reached where 5 % of the signal is left."""

Shares = Float[Tensor, " batch"]
"""alpha or sigma of each sample."""


def corrupt(
    x0: Float[Tensor, "batch channel h w"],
    noise: Float[Tensor, "batch channel h w"],
    alpha: Shares,
    sigma: Shares,
) -> Float[Tensor, "batch channel h w"]:
    """Noisy latents: so much signal, so much noise."""
    return _wide(alpha) * x0 + _wide(sigma) * noise


def target(
    prediction_type: str,
    x0: Float[Tensor, "batch channel h w"],
    noise: Float[Tensor, "batch channel h w"],
    alpha: Shares,
    sigma: Shares,
) -> Float[Tensor, "batch channel h w"]:
    """What the denoiser should predict."""
    match _known(prediction_type):
        case "epsilon":
            return noise
        case "v_prediction":
            return _wide(alpha) * noise - _wide(sigma) * x0
        case "flow":
            return noise - x0
        case _:
            return x0


def predict_x0(
    prediction_type: str,
    prediction: Float[Tensor, "batch channel h w"],
    xt: Float[Tensor, "batch channel h w"],
    alpha: Shares,
    sigma: Shares,
) -> Float[Tensor, "batch channel h w"]:
    """The clean latents that a prediction implies."""
    match _known(prediction_type):
        case "epsilon":
            return (xt - _wide(sigma) * prediction) / _wide(alpha)
        case "v_prediction":
            return _wide(alpha) * xt - _wide(sigma) * prediction
        case "flow":
            return xt - _wide(sigma) * prediction
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
        case "flow":
            return of_x0 / (1 + snr.sqrt()).square()  # sigma = 1 / (1 + sqrt(snr)) where alpha + sigma = 1
        case _:
            return of_x0


def snr(alpha: Shares, sigma: Shares) -> Shares:
    """Signal-to-noise ratio; kept above zero, so that a schedule that ends in pure noise divides safely."""
    return (alpha / sigma).square().clamp(min=1e-8)


def _wide(share: Shares) -> Float[Tensor, "batch 1 1 1"]:
    return share[:, None, None, None]


def _known(prediction_type: str) -> str:
    if prediction_type not in PREDICTION_TYPES:
        raise ModelError(
            f"there is no prediction type '{prediction_type}' (there are {', '.join(PREDICTION_TYPES)})"
        )
    return prediction_type
