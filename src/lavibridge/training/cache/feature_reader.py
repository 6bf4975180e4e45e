"""Reads captions with a frozen language model, each of them once.

captions --sorted by length, in batches by tokens--> features, cached in memory and perhaps on disk
"""

from collections.abc import Callable, Sequence

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.log import console
from lavibridge.recipes.training_section import CacheSection
from lavibridge.training.cache.backend import Backend, Memory, MemoryOverDisk, OnDisk
from lavibridge.training.cache.caches import feature_store
from lavibridge.training.cache.features import Features, refusal


class FeatureReader:
    """A language model's features of captions; each caption is read once, if it fits into the cache.

    The model must not change meanwhile: LoRA that is enabled or disabled at the first call stays so.
    """

    def __init__(self, bridge: Bridge, backend: Backend, maker: bytes = b"") -> None:
        self.device = bridge.device
        self.features = Features(bridge.language, bridge.connector.reading, backend, maker)

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        """The features of a batch of captions, in their order."""
        return self.features.together(captions, self.device)

    def read_ahead(self, captions: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> None:
        """Read a whole set of captions, sorted by length, and cache as many as there is room for.

        Shows a progress bar, and a note if some captions do not fit and are read again in every epoch. Ends
        early once ``stopped``; what it has read by then is on disk, if the cache is.
        """
        cached, distinct = self.features.read_ahead(captions, stopped), len(set(captions))
        if cached < distinct and not stopped():
            console.print(
                f"note: the cache holds the features of {cached:,} of {distinct:,} captions; the others are "
                "read whenever they are used: raise feature_cache_gb, or name training.cache.folder",
                soft_wrap=True,
            )

    def close(self) -> None:
        """Write features that wait to be written to disk, and free the memory."""
        self.features.backend.close()


def feature_reader(
    bridge: Bridge, cache_gb: float, cache: CacheSection | None = None, is_writing: bool = True
) -> FeatureReader:
    """A reader that caches up to ``cache_gb`` gigabytes in memory, without gradients.

    With ``cache``, the recipe's `training.cache`, features also go to that folder, under the keys that
    training uses, unless LoRA or trained queries change them. Features of trained queries are not cached at
    all. Without ``is_writing`` the folder is only read, as in all but one of several processes.
    """
    if bridge.connector.reading.queries is not None:
        return FeatureReader(bridge, Memory(0))
    memory = Memory(cache_gb)
    if cache is None or not cache.features or refusal(bridge) is not None:
        return FeatureReader(bridge, memory)
    store, maker = feature_store(bridge, cache)
    return FeatureReader(bridge, MemoryOverDisk(memory, OnDisk(store, is_writing)), maker)
