"""A sampler walked from noise to its last step with a function that predicts."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from lavibridge.generation.sampling import Sampling


def sample(predict: Callable[[Tensor, Tensor], Tensor], scheduler: Any, noise: Tensor, steps: int) -> Tensor:
    sampling = Sampling(scheduler, noise, steps)
    while not sampling.is_finished:
        sampling.take(predict(sampling.noisy, sampling.t))
    return sampling.latents
