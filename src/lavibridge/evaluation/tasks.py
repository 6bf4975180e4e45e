"""The images of a suite: `seeds` per prompt, each from a seed that the prompt determines.

    seed = crc32("suite/category/prompt/number/seed")      the same for every system, to pair their results
    file = images/CC-category/PPPPP-N.png                  category and prompt by index

File names do not contain the prompt, which may hold slashes, line breaks and ten thousand characters.
"""

import re
from collections.abc import Iterator, Sequence
from zlib import crc32

from lavibridge.core.errors import DataError, did_you_mean
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.prompts.base import PromptSource
from lavibridge.evaluation.suite import Suite


def task_noise_seed(suite: str, category: str, prompt: str, number: int, seed: int) -> int:
    """The seed of a picture's noise, a function of the prompt, so that all systems start from the same
    noise."""
    return crc32(f"{suite}/{category}/{prompt}/{number}/{seed}".encode())


def select_task_categories(
    suite: str, known: tuple[str, ...], categories: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the categories to evaluate, by default all. Raises DataError for an unknown one."""
    for name in categories or ():
        if name not in known:
            raise DataError(
                f"suite '{suite}' has no category '{name}'{did_you_mean(name, known)} "
                f"(there are {', '.join(known)})"
            )
    return tuple(dict.fromkeys(categories)) if categories else known


def make_tasks(
    suite: Suite, source: PromptSource, categories: Sequence[str] | None, limit: int | None, seed: int
) -> list[Task]:
    """Make all tasks of the chosen categories, for at most `limit` prompts of each.

    Raises DataError for an empty category.
    """
    tasks: list[Task] = []
    for category in select_task_categories(suite.name, source.categories, categories):
        found = list(_of_category(suite, source, category, limit, seed))
        if not found:
            raise DataError(f"suite '{suite.name}': category '{category}' has no prompts")
        tasks += found
    return tasks


def _of_category(
    suite: Suite, source: PromptSource, category: str, limit: int | None, seed: int
) -> Iterator[Task]:
    """Make the tasks of a category; a repeated prompt gets other seeds, and so another image."""
    place = source.categories.index(category)
    folder = f"images/{place:02d}-{_slug(category)}"
    taken: dict[str, int] = {}
    for index, prompt in enumerate(source.prompts(category, limit)):
        first = taken.get(prompt.text, 0)
        taken[prompt.text] = first + suite.seeds
        for number in range(first, first + suite.seeds):
            yield Task(
                category=category,
                prompt=prompt.text,
                seed=task_noise_seed(suite.name, category, prompt.text, number, seed),
                metadata=prompt.metadata,
                name=prompt.name,
                file=f"{folder}/{index:05d}-{number - first}.png",
            )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:32].strip("-") or "category"
