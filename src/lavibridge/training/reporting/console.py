"""What is said on stderr before the first step."""

from collections.abc import Mapping

from lavibridge.bridge import Bridge
from lavibridge.core.log import console
from lavibridge.data.base import Dataset
from lavibridge.recipes.training import Training
from lavibridge.training.build import scale_note

CAPTIONS_LOOKED_AT = 1000
CAPTIONS_SCALED = 16


def say(text: str) -> None:
    """One line, as it is."""
    console.print(text, soft_wrap=True)


def say_trained(parts: Mapping[str, int], rates: Mapping[str, float]) -> None:
    """Say what will be trained."""
    for part, count in parts.items():
        if count:
            say(f"trained: {part}, {count:,} weights, lr {rates[part]:g}")


def say_clock(settings: Training) -> None:
    """Say where the clock decides about the weights, which no second run can repeat."""
    if settings.max_minutes is not None and settings.schedule == "cosine":
        say(
            "note: with training.max_minutes the cosine follows the clock: this run can be gone on with, but "
            "neither repeated nor resumed bit for bit"
        )


def say_captions(bridge: Bridge, dataset: Dataset) -> None:
    """Say how many captions are longer than the language model is given, and whether their scale fits."""
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
