"""Prints the lines of a training on stderr, most of them before the first step."""

from collections.abc import Mapping

from lavibridge.bridge import Bridge
from lavibridge.core.log import console
from lavibridge.data.base import Dataset
from lavibridge.recipes.training_section import TrainingSection
from lavibridge.training.build_bridge import conditioning_scale_warning

_CAPTIONS_LOOKED_AT = 1000
_CAPTIONS_SCALED = 16


def print_line(text: str) -> None:
    """Print one line."""
    console.print(text, soft_wrap=True)


def print_trained_parts(parts: Mapping[str, int], rates: Mapping[str, float]) -> None:
    """Print the parts that the run trains; with their learning rates, unless the run only aligns."""
    for part, count in parts.items():
        if count:
            rate = f", lr {rates[part]:g}" if rates[part] else ""
            print_line(f"trained: {part}, {count:,} weights{rate}")


def warn_about_clock(settings: TrainingSection) -> None:
    """Warn if the learning rate depends on the clock, so that no second run can repeat it."""
    if settings.max_minutes is not None and settings.schedule == "cosine":
        print_line(
            "note: with training.max_minutes the cosine schedule follows the clock: you can resume this run, "
            "but a repeated or resumed run will differ in its last bits"
        )


def warn_about_captions(bridge: Bridge, dataset: Dataset) -> None:
    """Warn about captions that exceed the token limit, and about conditioning of an unusual scale."""
    looked_at = min(_CAPTIONS_LOOKED_AT, len(dataset))
    captions = [caption for index in range(looked_at) for caption in dataset.sample(index).captions]
    note = conditioning_scale_warning(bridge, captions[:_CAPTIONS_SCALED])
    if note is not None:
        print_line(note)
    cut = sum(lost > 0 for lost in bridge.language.count_tokens(bridge.language.revise(captions))[1])
    if cut:
        print_line(
            f"note: {cut:,} of the first {len(captions):,} captions exceed language.max_tokens; the language "
            "model does not read their ends"
        )
