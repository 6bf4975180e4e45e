"""Reads each caption once with a frozen language model.

captions --sorted by length, batched by tokens--> features, cached in memory and optionally on disk
"""

from collections.abc import Callable, Sequence

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.log import console
from lavibridge.recipes.training_section import CacheSection
from lavibridge.training.cache.backend import Backend, DiskBackend, MemoryBackend, MemoryOverDiskBackend
from lavibridge.training.cache.caches import feature_cache_folder
from lavibridge.training.cache.features import Features, features_refusal


class FeatureReader:
    """Returns a language model's features of captions; reads each caption once, if it fits into the cache.

    The model must not change between calls; do not enable or disable its LoRA after the first one.
    """

    def __init__(self, bridge: Bridge, backend: Backend, maker: bytes = b"") -> None:
        self.device = bridge.device
        self.features = Features(bridge.language, bridge.connector.reading, backend, maker)
        self.holds_all = False
        """Whether the cache holds all captions that were read ahead."""

    def __call__(self, captions: Sequence[str]) -> TextFeatures:
        """Return the features of captions, in their order."""
        return self.features.together(captions, self.device)

    def read_ahead(self, captions: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> None:
        """Read a whole set of captions, sorted by length, and cache as many as fit.

        Shows a progress bar, and prints a note if some captions do not fit and must be read in every epoch.
        Ends early once ``stopped``; a cache on disk keeps what it has read by then.
        """
        cached, distinct = self.features.read_ahead(captions, stopped), len(set(captions))
        self.holds_all = cached == distinct
        if cached < distinct and not stopped():
            console.print(
                f"note: the cache holds the features of {cached:,} of {distinct:,} captions; the language "
                "model reads the others at every use: raise feature_cache_gb, or set training.cache.folder",
                soft_wrap=True,
            )

    def unload(self) -> None:
        """Unload the language model if the cache holds all captions; other captions load it again."""
        if self.holds_all and self.features.language.can_unload:
            self.features.language.unload()

    def close(self) -> None:
        """Write pending features to disk, and free the memory."""
        self.features.backend.close()


def feature_reader(
    bridge: Bridge, cache_gb: float, cache: CacheSection | None = None, is_writing: bool = True
) -> FeatureReader:
    """Make a reader without gradients that caches up to ``cache_gb`` gigabytes in memory.

    With ``cache``, the recipe's `training.cache`, it also stores features in that folder, under the keys of
    training, unless LoRA or learned queries change them. It never caches features of learned queries. Without
    ``is_writing`` it only reads the folder, as all but one of several processes do.
    """
    if bridge.connector.reading.queries is not None:
        return FeatureReader(bridge, MemoryBackend(0))
    memory = MemoryBackend(cache_gb)
    if cache is None or not cache.features or features_refusal(bridge) is not None:
        return FeatureReader(bridge, memory)
    store, maker = feature_cache_folder(bridge, cache)
    return FeatureReader(bridge, MemoryOverDiskBackend(memory, DiskBackend(store, is_writing)), maker)
