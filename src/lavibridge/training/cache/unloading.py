"""Unloads a frozen language model during training, once the features of all captions are cached.

    captions of the data, in their order:   cached  cached  cached  not yet | ...
                                            looked up once          looked up again after the next step

Previews, validation and a damaged entry of the cache load the model again; `Unloader` then unloads it anew.
"""

from collections.abc import Iterator
from typing import final

from lavibridge.data.base import Dataset
from lavibridge.training.cache.features import Features


@final
class Unloader:
    """Unloads the language model of ``features`` once all ``captions`` are cached, which stay cached."""

    def __init__(self, features: Features, captions: Iterator[str]) -> None:
        self.features = features
        self.captions = captions
        self.next = next(captions, None)

    def __call__(self) -> int:
        """Unload the model if no caption is missing; returns the bytes that this frees."""
        features = self.features
        while self.next is not None and features.key(self.next) in features.backend:
            self.next = next(self.captions, None)
        if self.next is not None:
            return 0
        with features.reading_alone:  # a thread that prefetches may read a caption whose entry is damaged
            return features.language.unload()


def captions_of_run(dataset: Dataset, caption_dropout: float) -> Iterator[str]:
    """Yield every caption that training may read, the empty one first if captions are dropped."""
    if caption_dropout > 0:
        yield ""
    for index in range(len(dataset)):
        yield from dataset.sample(index).captions
