"""The captions of an alignment: those that it learns from, and those that only measure."""

from dataclasses import dataclass

from lavibridge.core.errors import RecipeError
from lavibridge.data.base import Dataset
from lavibridge.recipes.training_section import AlignmentSection
from lavibridge.training.alignment.teacher import SETTING
from lavibridge.training.data.order import ShuffledOrder, mix_seeds

CAPTION_ORDER, CAPTION_CHOICE = 2, 3
"""Keep these random numbers apart from others of the same seed."""


@dataclass(frozen=True, kw_only=True)
class AlignmentCaptions:
    """The captions of an alignment; those that only measure are apart."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


def alignment_captions(dataset: Dataset, settings: AlignmentSection, seed: int) -> AlignmentCaptions:
    """Return different captions of the data, one for each sample, in an order that the seed decides."""
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
