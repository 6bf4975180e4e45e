"""Selects the captions of an alignment: captions to learn from, and held-out captions to measure with."""

from dataclasses import dataclass

from lavibridge.core.errors import RecipeError
from lavibridge.core.seeds import mix_seeds
from lavibridge.data.base import Dataset
from lavibridge.recipes.training_section import AlignmentSection
from lavibridge.training.alignment.teacher import SETTING
from lavibridge.training.data.order import ShuffledOrder

CAPTION_ORDER, CAPTION_CHOICE = 2, 3
"""Mixed with the seed to keep these random numbers apart from others."""


@dataclass(frozen=True, kw_only=True)
class AlignmentCaptions:
    """The captions of an alignment; no caption is in both sets."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def alignment_captions(dataset: Dataset, settings: AlignmentSection, seed: int) -> AlignmentCaptions:
    """Choose distinct captions of the data, one for each sample, in an order that the seed determines."""
    limit = min(settings.captions, settings.steps * settings.batch)
    order = ShuffledOrder(len(dataset), mix_seeds(seed, CAPTION_ORDER))
    found: dict[str, None] = {}
    for position in range(len(dataset)):
        texts = dataset.sample(order.index(position)).captions
        found[texts[mix_seeds(seed, CAPTION_CHOICE, position) % len(texts)]] = None
        if len(found) == limit + settings.held_out:
            break
    captions = tuple(found)
    if len(captions) < 2:
        raise RecipeError(f"{SETTING} needs at least two different captions, found {len(captions)}")
    measured = min(settings.held_out, len(captions) // 10)
    return AlignmentCaptions(training=captions[measured:][:limit], held_out=captions[:measured])
