"""Many pictures in one call of the denoiser, each with the bits that it would have alone.

    rows of all pictures (one, or two with guidance) --> call(s) of at least `least` rows, one token width

On a CPU the bits of a row depend on what stands beside it in two ways only, and both are taken away here:
matrix products and convolutions of very few rows take another path (so a call is filled up to `least` rows),
and attention adds in another order under another number of tokens (so every prompt is padded to one width,
with a column that is always hidden; where the denoiser takes no mask, a call has rows of one length).
Whether that holds on this machine is found out by trying, not believed: see `least_rows`.

That batching changes what is computed, and what it takes to forbid it: He 2025 (Thinking Machines Lab),
"Defeating Nondeterminism in LLM Inference".
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.vision.base import VisionModel

CANDIDATES = (2, 4, 8)
"""Least rows of a call that are tried, the cheapest first."""
SLOW = 1.0
"""Seconds of one row from which on nothing is tried: so large a denoiser gains nothing by sharing calls on a
CPU, and a server should start within seconds."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the denoiser is shown of one picture, under one prompt."""

    noisy: Float[Tensor, "channel h w"]
    t: Float[Tensor, ""]
    tokens: Float[Tensor, "token context"]
    """Real tokens only."""
    pooled: Float[Tensor, " _"] | None


def predict_rows(
    vision: VisionModel, rows: Sequence[Row], width: int, least: int
) -> list[Float[Tensor, "channel h w"]]:
    """The denoiser's prediction for each row."""
    answers: dict[int, Tensor] = {}
    for chosen in calls(vision, rows):
        filled = [rows[index] for index in chosen]
        filled += [filled[0]] * (least - len(filled))
        predicted = vision.predict(
            torch.stack([row.noisy for row in filled]),
            torch.stack([row.t for row in filled]),
            condition(filled, width if vision.honours_mask else len(filled[0].tokens)),
        )
        answers |= dict(zip(chosen, predicted, strict=False))  # what fills the call is left out
    return [answers[index] for index in range(len(rows))]


def calls(vision: VisionModel, rows: Sequence[Row]) -> list[list[int]]:
    """Which rows go into one call: all of them, or those of one length where the denoiser takes no mask."""
    if vision.honours_mask:
        return [list(range(len(rows)))]
    lengths = sorted({len(row.tokens) for row in rows})
    return [[i for i, row in enumerate(rows) if len(row.tokens) == length] for length in lengths]


def condition(rows: Sequence[Row], width: int) -> Conditioning:
    """Rows' tokens as one conditioning, padded on the right to ``width`` tokens."""
    tokens = rows[0].tokens.new_zeros(len(rows), width, rows[0].tokens.shape[1])
    mask = torch.zeros(len(rows), width, dtype=torch.bool, device=tokens.device)
    for index, row in enumerate(rows):
        tokens[index, : len(row.tokens)] = row.tokens
        mask[index, : len(row.tokens)] = True
    pooled = [row.pooled for row in rows if row.pooled is not None]
    return Conditioning(tokens=tokens, mask=mask, pooled=torch.stack(pooled) if pooled else None)


@torch.inference_mode()
def least_rows(vision: VisionModel, width: int, most: int) -> int | None:
    """The least rows of a call from which on, up to ``most``, no row's bits depend on the others.

    None where there is no such number, or one row alone is SLOW: then each picture has to be drawn by itself.
    Only a CPU is asked; of a GPU no such thing is promised, and the answer is 1.
    """
    device = vision.alphas.device
    if device.type != "cpu":
        return 1
    rows = trial_rows(vision, width, most)
    begun = time.perf_counter()
    _predict(vision, rows[:1], width, 1)
    if time.perf_counter() - begun > SLOW:
        return None
    for least in (each for each in CANDIDATES if each <= most):
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
    vision: VisionModel, rows: Sequence[Row], width: int, least: int
) -> Float[Tensor, "batch channel h w"]:
    return torch.stack(predict_rows(vision, rows, width, least))


def trial_rows(vision: VisionModel, width: int, most: int) -> list[Row]:
    """Noise under noise, with all numbers of tokens."""
    chance = torch.Generator().manual_seed(0)
    shape = vision.latent_shape(vision.default_size, vision.default_size)
    lengths = [1 + (7 * i) % (width - 1) if vision.honours_mask else width - 1 for i in range(most)]
    pooled = vision.spec.pooled
    return [
        Row(
            noisy=torch.randn(shape, generator=chance),
            t=vision.times[(97 * (i + 1)) % len(vision.times)].float(),
            tokens=torch.randn(length, vision.spec.context, generator=chance),
            pooled=None if pooled is None else torch.randn(pooled, generator=chance),
        )
        for i, length in enumerate(lengths)
    ]
