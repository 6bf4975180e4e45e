"""What is asked for, checked before anything is drawn: prompts, seeds, numbers, and weights that can act."""

from collections.abc import Sequence

from lavibridge.connectors.base import Connector
from lavibridge.core.errors import RecipeError
from lavibridge.core.log import console
from lavibridge.core.seeds import MAX_SEED
from lavibridge.generation.emphasis import Weighted, read
from lavibridge.language.base import LanguageModel


def asked_for(
    prompts: str | Sequence[str], seed: int | Sequence[int], batch: int, weights: bool
) -> tuple[tuple[Weighted, ...], tuple[int, ...]]:
    """Prompts, with their weights read or as they stand, and a seed for each.

    Raises RecipeError for what cannot be drawn.
    """
    given = (prompts,) if isinstance(prompts, str) else prompts
    wanted = tuple(read(prompt, weights) for prompt in given)
    empty = [str(index + 1) for index, prompt in enumerate(wanted) if not prompt.text.strip()]
    if not wanted or empty:
        found = f"prompt {', '.join(empty)} is empty" if empty else "there are no prompts"
        raise RecipeError(
            f"{found}: give a text to draw (the empty prompt is what guidance leads away from, and is "
            "used for that by itself)"
        )
    seeds = (seed,) * len(wanted) if isinstance(seed, int) else tuple(seed)
    if len(seeds) != len(wanted):
        raise RecipeError(f"give one seed, or one for each prompt: {len(seeds)} seeds, {len(wanted)} prompts")
    outside = [each for each in seeds if not 0 <= each <= MAX_SEED]
    if outside:
        raise RecipeError(f"seeds are whole numbers from 0 to 2^64 - 1, found {outside[0]}")
    if batch < 1:
        raise RecipeError(f"batch must be 1 or more, found {batch}")
    return wanted, seeds


def check_step_cache(threshold: float | None) -> None:
    """RecipeError for what is no threshold."""
    if threshold is not None and not 0 < threshold < 1:
        raise RecipeError(
            "step_cache is the relative change up to which a step reuses the one before, above 0 and below "
            f"1, such as 0.1; found {threshold}"
        )


def check_weights(prompts: Sequence[Weighted], connector: Connector) -> None:
    """RecipeError where prompts hold weights that have nothing to act on."""
    if connector.reading.queries is not None and not all(each.is_plain for each in prompts):
        raise RecipeError(
            "this connector asks the language model instead of reading its tokens, so that weights such "
            "as (word:1.2) have nothing to act on: leave them out"
        )


def note_cuts(prompts: Sequence[Weighted], language: LanguageModel) -> None:
    """Say what is cut off of each prompt that exceeds the token limit."""
    texts = [each.text for each in prompts]
    counts = zip(texts, *language.count_tokens(texts), strict=True)
    for index, (text, kept, lost) in enumerate(counts, start=1):
        if lost:
            console.print(
                f"note: prompt {index} ('{text[:40]}...') is too long: its first {kept} tokens are used, "
                f"the last {lost} are cut off",
            )
