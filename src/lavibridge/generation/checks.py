"""Checks a request before generation starts: prompts, seeds, numbers, and word weights."""

from collections.abc import Sequence

from PIL import Image

from lavibridge.bridge.text_side import TextSide
from lavibridge.core.errors import RecipeError
from lavibridge.core.log import console
from lavibridge.core.seeds import MAX_SEED
from lavibridge.generation.emphasis import WeightedPrompt, read_emphasis
from lavibridge.language.base import LanguageModel


def check_prompts(prompts: str | Sequence[str], prompt_weighting: bool = False) -> tuple[WeightedPrompt, ...]:
    """Read prompts; with ``prompt_weighting``, brackets are weights. Raises RecipeError if one is empty."""
    read_all = tuple(
        read_emphasis(prompt, prompt_weighting)
        for prompt in ((prompts,) if isinstance(prompts, str) else prompts)
    )
    empty = [str(index + 1) for index, prompt in enumerate(read_all) if not prompt.text.strip()]
    if not read_all or empty:
        found = f"prompt {', '.join(empty)} is empty" if empty else "there are no prompts"
        raise RecipeError(f"{found}: describe an image (guidance adds the empty prompt by itself)")
    return read_all


def texts_and_pictures(
    prompts: str | Sequence[str] | Image.Image | Sequence[Image.Image],
) -> tuple[list[str], list[Image.Image]]:
    """Return prompts that are texts, and those that are pictures. Raises RecipeError for a mixture."""
    several = [prompts] if isinstance(prompts, str | Image.Image) else list(prompts)
    texts = [each for each in several if isinstance(each, str)]
    pictures = [each for each in several if isinstance(each, Image.Image)]
    if texts and pictures:
        raise RecipeError("the prompts are texts and pictures: draw them in two calls")
    return texts, pictures


def check_negative_prompts(
    negative_prompt: str | Sequence[str] | None, count: int, prompt_weighting: bool = False
) -> tuple[WeightedPrompt, ...]:
    """Return one negative prompt for each of ``count`` prompts. Raises RecipeError if the numbers differ."""
    if negative_prompt is None or isinstance(negative_prompt, str):
        texts = [negative_prompt or ""] * count
    else:
        texts = list(negative_prompt)
    if len(texts) != count:
        raise RecipeError(
            f"give one negative prompt, or one for each prompt: found {len(texts)} for {count} prompts"
        )
    return tuple(read_emphasis(text, prompt_weighting, is_negative=True) for text in texts)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise RecipeError for a seed that torch's generators reject."""
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise RecipeError(f"a seed must be a whole number from 0 to 2^64 - 1, found {seed}")


def check_count(name: str, value: int) -> None:
    """Raise RecipeError if ``value`` is below 1."""
    if value < 1:
        raise RecipeError(f"{name} must be 1 or more, found {value}")


def read_size(size: str, name: str) -> tuple[int, int]:
    """Read width and height in pixels from `WIDTHxHEIGHT`. Raises RecipeError for anything else."""
    sides = size.split("x")
    if len(sides) != 2 or not all(each.isascii() and each.isdigit() and len(each) <= 5 for each in sides):
        raise RecipeError(f"{name}: write it as WIDTHxHEIGHT in pixels, such as 768x512, found {size[:40]!r}")
    return int(sides[0]), int(sides[1])


def check_step_cache(threshold: float | None) -> None:
    """Raise RecipeError if the threshold is not between 0 and 1."""
    if threshold is not None and not 0 < threshold < 1:
        raise RecipeError(
            "step_cache must be above 0 and below 1, such as 0.1: a step reuses the step before if less than "
            f"this share has changed; found {threshold}"
        )


def check_word_weights(prompts: Sequence[WeightedPrompt], bridge: TextSide) -> None:
    """Raise RecipeError if prompts have word weights but the bridge does not read these words."""
    if all(each.is_plain for each in prompts):
        return
    if bridge.connector.reading.queries is not None:
        raise RecipeError(
            "word weights such as (word:1.2) have no effect with this connector, which reads learned queries "
            "instead of the prompt's tokens: remove the weights"
        )
    if bridge.language.config.proxy is not None and not all(
        each.is_plain or each.is_negative for each in prompts
    ):
        raise RecipeError(
            "word weights such as (word:1.2) have no effect with a proxy (language.proxy), which revises the "
            "prompt: remove the weights"
        )


def warn_about_long_prompts(prompts: Sequence[WeightedPrompt], language: LanguageModel) -> None:
    """Warn about every prompt, or its revision by a proxy, that exceeds the language model's token limit."""
    texts = language.revise([each.text for each in prompts])
    counts = zip(texts, *language.count_tokens(texts), strict=True)
    for index, (text, kept, lost) in enumerate(counts, start=1):
        if lost:
            console.print(
                f"note: prompt {index} ('{text[:40]}...') exceeds the token limit: the language model reads "
                f"its first {kept} tokens and ignores the last {lost}",
            )
