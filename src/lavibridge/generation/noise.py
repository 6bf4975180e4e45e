"""The noise that pictures begin from: of seeds, or of generators as in Diffusers.

seed 7                  prompt 1: 7, 8, ...    prompt 2: 7, 8, ...     its own generator for each picture
seeds [7, 3]            one for each picture
generator               draws for all pictures in turn
[generator, ...]        one for each picture
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
"""The noise of the pictures at these places, from 0."""


def initial_noise(shape: tuple[int, int, int], seeds: Sequence[int]) -> Float[Tensor, "batch channel h w"]:
    """Noise for each seed, made on the CPU so that it is the same on every device."""
    return torch.stack([_draw(shape, torch.Generator().manual_seed(seed)) for seed in seeds])


def noise_source(
    shape: tuple[int, int, int],
    prompts: int,
    images_per_prompt: int,
    seed: int | Sequence[int] | None,
    generator: NoiseGenerators,
) -> NoiseSource:
    """What gives each picture its noise; call it with each place once, in order.

    Raises RecipeError where both are given, or where their number is not that of the pictures.
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
        raise RecipeError(f"give one {name}, or one for each picture: found {found} for {count} pictures")
