"""Which times are trained on: a place in the vision model's schedule for a number between 0 and 1.

    uniform        place = u                                   u in [0, 1), one for each visit
    logit_normal   place = sigmoid(location + scale * z)       z = the normal's quantile of u
    t = floor(place * steps of the schedule)                   0: nearly clean, the last: pure noise

For a flow whose schedule is not shifted, the place is the share of noise, and the second is the density that
Stable Diffusion 3 was trained with.

Esser et al. 2024, arXiv 2403.03206, eq. 19.
"""

import torch

from lavibridge.recipes.training import Training


def timestep(chance: float, steps: int, settings: Training) -> int:
    """The step of a schedule of so many, for a number in [0, 1)."""
    place = chance
    if settings.times == "logit_normal":
        normal = torch.special.ndtri(torch.tensor(chance, dtype=torch.float64))
        place = float(torch.sigmoid(settings.times_location + settings.times_scale * normal))
    return min(int(place * steps), steps - 1)  # a place may be rounded to 1
