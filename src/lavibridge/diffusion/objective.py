"""The training objective: how latents are corrupted, and what the model should predict.

    xt = alpha x0 + sigma eps        snr = alpha^2 / sigma^2        (alpha, sigma: see diffusion/schedule.py)
    target    epsilon: eps      v_prediction: alpha eps - sigma x0      sample: x0      flow: eps - x0

    an error of x0 is the error of the prediction divided by sqrt(snr), sqrt(snr + 1), 1 or 1 / sigma

A flow has alpha + sigma = 1. How much each noise level counts in the loss: diffusion/weighting.

Ho et al. 2020 (epsilon), arXiv 2006.11239; Salimans and Ho 2022 (v), arXiv 2202.00512; Lipman et al. 2022
(flow), arXiv 2210.02747.
"""

from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import ModelError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")

Shares = Float[Tensor, " batch"]
"""alpha or sigma of each sample."""


def add_noise(
    x0: Float[Tensor, "batch channel h w"],
    noise: Float[Tensor, "batch channel h w"],
    alpha: Shares,
    sigma: Shares,
) -> Float[Tensor, "batch channel h w"]:
    """Noisy latents: alpha times the clean ones plus sigma times the noise."""
    return _wide(alpha) * x0 + _wide(sigma) * noise


def prediction_target(
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


def weight_from_x0(
    weight: Float[Tensor, " batch"], snr: Float[Tensor, " batch"], prediction_type: str
) -> Float[Tensor, " batch"]:
    """The weight of an error of the prediction that equals ``weight`` on the error of x0 it implies."""
    match _known(prediction_type):
        case "epsilon":
            return weight / snr
        case "v_prediction":
            return weight / (snr + 1)
        case "flow":
            return weight / (1 + snr.sqrt()).square()  # sigma = 1 / (1 + sqrt(snr)) where alpha + sigma = 1
        case _:
            return weight


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
