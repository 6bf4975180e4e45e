"""Finds how many rows a shared call needs so that an image has the same bits alone and in a batch.

    rows of all images (one, or two with guidance) --> calls of at least `least_rows` rows, one token width

On a CPU two things change a row's bits. Matrix products and convolutions of very few rows take another code
path, so each call is filled up to a minimum number of rows. Attention sums in another order for another
number of tokens, so `SharedDenoiserCalls` pads every prompt to one width. The server tests whether this
suffices on its machine.

He 2025 (Thinking Machines Lab), "Defeating Nondeterminism in LLM Inference", on batch invariance.
"""

import time
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.generation.denoise import DenoiserRow, SharedDenoiserCalls, predict_denoiser_rows
from lavibridge.vision.base import VisionModel

_CANDIDATES = (2, 4, 8)
"""Minimum numbers of rows to try, the cheapest first."""
LEAST_ROWS_TIME_LIMIT = 1.0
"""Seconds for one row above which the search is skipped: a denoiser that slow gains nothing from shared calls
on a CPU, and a server should start within seconds."""


@torch.inference_mode()
def find_least_rows(vision: VisionModel, width: int, most: int) -> int | None:
    """Return the smallest number of rows at which, up to ``most``, no row's bits depend on other rows.

    Returns None if there is no such number or one row takes too long; each image then needs calls of its own.
    Returns 1 on a GPU, where nothing guarantees equal bits.
    """
    device = vision.alphas.device
    if device.type != "cpu":
        return 1
    rows = least_rows_trial(vision, width, most)
    begun = time.perf_counter()
    _predict(vision, rows[:1], width, 1)
    if time.perf_counter() - begun > LEAST_ROWS_TIME_LIMIT:
        return None
    for least in (each for each in _CANDIDATES if each <= most):
        alone = torch.cat([_predict(vision, rows[i : i + 1], width, least) for i in range(len(rows))])
        counts = sorted({least + 1, 2 * least - 1, (least + most) // 2, most} & set(range(most + 1)))
        if all(
            torch.equal(_predict(vision, rows[start : start + count], width, least), alone[start:][:count])
            for count in counts
            for start in (0, most - count)
        ):
            return least
    return None


def _predict(
    vision: VisionModel, rows: Sequence[DenoiserRow], width: int, least: int
) -> Float[Tensor, "batch channel h w"]:
    return torch.stack(
        predict_denoiser_rows(vision, rows, SharedDenoiserCalls(width=width, least_rows=least))
    )


def least_rows_trial(vision: VisionModel, width: int, most: int) -> list[DenoiserRow]:
    """Return random rows with random conditioning of various lengths."""
    rng = torch.Generator().manual_seed(0)
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    lengths = [1 + (7 * i) % (width - 1) if vision.honours_mask else width - 1 for i in range(most)]
    pooled = vision.spec.pooled
    rows = []
    for i, length in enumerate(lengths):
        noisy = torch.randn(shape, generator=rng)
        conditioning = Conditioning(
            tokens=torch.randn(1, length, vision.spec.context, generator=rng),
            mask=torch.ones(1, length, dtype=torch.bool),
            pooled=None if pooled is None else torch.randn(1, pooled, generator=rng),
        )
        t = vision.times[(97 * (i + 1)) % len(vision.times)].float()
        rows.append(DenoiserRow(noisy=noisy, t=t, conditioning=conditioning))
    return rows
