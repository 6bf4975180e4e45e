"""The lines that training prints on stderr, most of them before the first step."""

from collections.abc import Mapping

from lavibridge.bridge import Bridge
from lavibridge.core.log import console
from lavibridge.data.base import Dataset
from lavibridge.recipes.training import Training
from lavibridge.training.build import scale_note

CAPTIONS_LOOKED_AT = 1000
CAPTIONS_SCALED = 16


def say(text: str) -> None:
    """Print one line."""
    console.print(text, soft_wrap=True)


def say_trained(parts: Mapping[str, int], rates: Mapping[str, float]) -> None:
    """Print what the run trains, with learning rates."""
    for part, count in parts.items():
        if count:
            say(f"trained: {part}, {count:,} weights, lr {rates[part]:g}")


def say_clock(settings: Training) -> None:
    """Warn if the clock decides the learning rate, which no second run repeats."""
    if settings.max_minutes is not None and settings.schedule == "cosine":
        say(
            "note: with training.max_minutes the cosine follows the clock: this run can be gone on with, but "
            "neither repeated nor resumed bit for bit"
        )


def say_captions(bridge: Bridge, dataset: Dataset) -> None:
    """Warn about captions that exceed the token limit, and about conditioning of an unusual scale."""
    looked_at = min(CAPTIONS_LOOKED_AT, len(dataset))
    captions = [caption for index in range(looked_at) for caption in dataset.sample(index).captions]
    note = scale_note(bridge, captions[:CAPTIONS_SCALED])
    if note is not None:
        say(note)
    cut = sum(lost > 0 for lost in bridge.language.count_tokens(captions)[1])
    if cut:
        say(
            f"note: {cut:,} of the first {len(captions):,} captions are longer than language.max_tokens; "
            "their ends are cut off"
        )
