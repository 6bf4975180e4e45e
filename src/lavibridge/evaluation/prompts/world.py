"""Prompts of the miniature world with their specs, in a short or a long form.

    short    a red circle to the left of a blue square
    long     there is a red circle here. to the right of it is a blue square. ...

Both forms come from the same spec, so the exact checker applies to both.
"""

from collections.abc import Sequence
from typing import Any, Literal
from zlib import crc32

import numpy as np
from pydantic import Field

from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.prompts.base import PromptSource
from lavibridge.world import captions
from lavibridge.world.caption_templates import write_caption
from lavibridge.world.captions import CATEGORIES, CaptionedScene


class WorldPrompts(PromptSource):
    """A fixed list of prompts per category; a smaller count takes a prefix."""

    class Config(PromptSource.Config):
        """The options of the world's prompts."""

        categories: dict[str, int] = Field(min_length=1)
        """Prompts per category."""
        length: Literal["short", "long"] = "short"
        """The form; `long` describes the category `spatial` in several sentences, for the same specs."""

    config: "WorldPrompts.Config"

    def __init__(self, config: "WorldPrompts.Config") -> None:
        """Check the names of the categories. Raises DataError for an unknown one."""
        super().__init__(config)
        if config.length == "long" and set(config.categories) != {"spatial"}:
            raise DataError("prompts.world: `length: long` supports only the category spatial")
        for name, count in config.categories.items():
            if name not in CATEGORIES or count < 1:
                raise DataError(
                    f"prompts.world.categories: '{name}: {count}' is invalid: give at least 1 prompt of "
                    f"{', '.join(CATEGORIES)}"
                )

    @property
    def categories(self) -> tuple[str, ...]:
        """The chosen categories."""
        return tuple(self.config.categories)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """Prompts with their specs. Raises DataError if the category has too few."""
        count = self.config.categories[category]
        try:
            pairs = captions.evaluation_prompts(category, count if limit is None else min(limit, count))
        except ValueError as error:
            raise DataError(str(error)) from None
        return [Prompt(category=category, text=self._text(pair), metadata=pair.spec) for pair in pairs]

    def card(self) -> dict[str, Any]:
        """The kind, and the form if it is long."""
        long = {"length": "long"} if self.config.length == "long" else {}
        return {**super().card(), **long}

    def _text(self, pair: CaptionedScene) -> str:
        if self.config.length == "short":
            return pair.caption
        return write_caption(np.random.default_rng(crc32(pair.caption.encode())), pair.spec, "long")
