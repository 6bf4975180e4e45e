"""Draws the noise that denoising starts from, from seeds or, as in Diffusers, from generators.

seed=7                  images of every prompt have the seeds 7, 8, ...; each has its own generator
seed=[7, 3]             one seed for each image
generator               one generator draws for all images in turn
[generator, ...]        one generator for each image
neither                 torch's global generator
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import RecipeError
from lavibridge.generation.checks import check_seeds

NoiseGenerators = torch.Generator | Sequence[torch.Generator] | None
NoiseSource = Callable[[range], Tensor]
"""Indices of images from 0 -> their noise, (image, channel, h, w)."""


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Float[Tensor, "batch channel h w"]:
    """Draw noise for each seed, on the CPU so that it is the same on every device."""
    return torch.stack([_draw(shape, torch.Generator().manual_seed(seed)) for seed in seeds])


def noise_source(
    shape: tuple[int, int, int],
    prompts: int,
    images_per_prompt: int,
    seed: int | Sequence[int] | None,
    generator: NoiseGenerators,
) -> NoiseSource:
    """Return a function that draws the noise of images; call it with each index once, in order.

    ``shape`` has channels, height and width of the latents. Raises RecipeError if both ``seed`` and
    ``generator`` are given, or if the number of seeds or generators is not that of the images.
    """
    count = prompts * images_per_prompt
    if seed is not None and generator is not None:
        raise RecipeError("give a seed or a generator, not both: a generator has its own seed")
    if seed is not None:
        seeds = (
            [seed + number for _ in range(prompts) for number in range(images_per_prompt)]
            if isinstance(seed, int)
            else list(seed)
        )
        _check_number("seed", len(seeds), count)
        check_seeds(seeds)
        return lambda places: initial_noise(shape, [seeds[place] for place in places])
    if generator is None or isinstance(generator, torch.Generator):
        return lambda places: _draw((len(places), *shape), generator)
    generators = list(generator)
    _check_number("generator", len(generators), count)
    return lambda places: torch.stack([_draw(shape, generators[place]) for place in places])


def _draw(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    device = torch.device("cpu") if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device)


def _check_number(name: str, found: int, count: int) -> None:
    if found != count:
        raise RecipeError(f"give one {name}, or one for each image: found {found} for {count} images")
