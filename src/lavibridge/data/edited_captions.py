"""Edits captions as people do for small sets: a prefix, a trigger word, tags in another order or left out.

    sample(i)          prefix + [trigger, ] + caption            the same at every visit
    visit_caption(i)   its tags, which commas separate, shuffled and dropped, by the seed of the visit alone

The prefix, the trigger and the first ``keep_tags`` tags stay in front. A training therefore sees the same
captions whether it was interrupted or not.
"""

import random
from typing import final

import numpy as np
from jaxtyping import Int

from lavibridge.data.base import Dataset, DatasetPart, PicturePixels, Sample


@final
class EditedCaptions(Dataset):
    """A dataset whose captions are edited as its settings say."""

    def __init__(self, whole: Dataset) -> None:
        super().__init__(whole.config, whole.rejected)
        self.whole = whole
        self.has_pictures = whole.has_pictures

    def __len__(self) -> int:
        return len(self.whole)

    def sample(self, index: int) -> Sample:
        sample = self.whole.sample(index)
        return Sample(name=sample.name, captions=tuple(self._begun(each) for each in sample.captions))

    def visit_caption(self, index: int, caption: str, seed: int) -> str:
        settings = self.config
        body = self.whole.visit_caption(index, caption.removeprefix(settings.prefix), seed)
        if not settings.varies_captions:
            return settings.prefix + body
        tags = [tag.strip() for tag in body.split(",") if tag.strip()]
        kept = settings.keep_tags + int(self._is_trigger(tags[0]) if tags else 0)
        front, rest = tags[:kept], tags[kept:]
        rng = random.Random(seed)
        rest = [tag for tag in rest if rng.random() >= settings.tag_dropout or self._has_trigger(tag)]
        if settings.shuffle_tags:
            rng.shuffle(rest)
        return settings.prefix + ", ".join([*front, *rest])

    def picture(self, index: int, size: tuple[int, int]) -> PicturePixels:
        return self.whole.picture(index, size)

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        return self.whole.sizes()

    def content(self, index: int) -> bytes:
        return self.whole.content(index)

    def parts(self) -> tuple[DatasetPart, ...]:
        return self.whole.parts()

    def fingerprint(self) -> str:
        """Return that of the data; the edits belong to the recipe."""
        return self.whole.fingerprint()

    def _begun(self, caption: str) -> str:
        """The caption with its prefix, and with the trigger unless it has that already."""
        trigger = self.config.trigger
        if trigger is not None and not self._has_trigger(caption):
            caption = f"{trigger}, {caption}" if caption.strip() else trigger
        return self.config.prefix + caption

    def _has_trigger(self, text: str) -> bool:
        return self.config.trigger is not None and self.config.trigger.lower() in text.lower()

    def _is_trigger(self, tag: str) -> bool:
        return self.config.trigger is not None and tag.lower() == self.config.trigger.lower()
