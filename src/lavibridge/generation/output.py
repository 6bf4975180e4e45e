"""The output of a pipeline: PIL images, a NumPy array, a tensor, or latents.

pil       8-bit RGB                           np    float32 in [0, 1], (image, height, width, 3)
latent    (image, channel, h, w)              pt    float32 in [0, 1], (image, 3, height, width)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils import BaseOutput
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lavibridge.core.errors import RecipeError, did_you_mean

_OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class BridgePipelineOutput(BaseOutput):
    """The images of one call of a pipeline."""

    images: Any
    """A list of PIL images, a NumPy array or a tensor, depending on ``output_type``."""


def check_output_type(output_type: str) -> None:
    """Raise RecipeError if the output type is unknown."""
    if output_type not in _OUTPUT_TYPES:
        raise RecipeError(
            f"unknown output_type '{output_type}'{did_you_mean(output_type, _OUTPUT_TYPES)} "
            f"(choose from {', '.join(_OUTPUT_TYPES)})"
        )


def convert_output(values: Float[Tensor, "batch channel h w"], output_type: str) -> Sequence[Any]:
    """Convert decoded images in [-1, 1], or latents for "latent", one by one to ``output_type``."""
    match output_type:
        case "pil":
            return to_pil_images(values)
        case "latent":
            return list(values)
        case "pt":
            return list((values.float().clamp(-1, 1) + 1) / 2)
        case _:
            return list(((values.float().clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).cpu().numpy())


def collect_output(images: Sequence[Any], output_type: str) -> Any:
    """Combine the converted images of all batches."""
    match output_type:
        case "pil":
            return list(images)
        case "np":
            return np.stack(images)
        case _:
            return torch.stack(list(images))


def to_pil_images(pictures: Float[Tensor, "batch 3 height width"]) -> list[Image.Image]:
    """Convert values in [-1, 1] to 8-bit RGB images; clips values outside this range."""
    levels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    arrays = levels.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]
