"""Opens the caches of a run that its recipe asks for.

    training.cache: null        latents and features in memory, within latent_cache_gb and feature_cache_gb
    training.cache.folder: F    F/latents-ID/ and F/features-ID/ on disk, shared by all runs that name F

ID is a hash of the model, so that the folders of models that are no longer used can be found and removed.
"""

from dataclasses import dataclass

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import RecipeError
from lavibridge.data.base import Dataset
from lavibridge.recipes.training_section import CacheSection, TrainingSection
from lavibridge.training.cache.backend import Backend, Memory, OnDisk
from lavibridge.training.cache.features import Features, refusal
from lavibridge.training.cache.keys import feature_maker, latent_maker
from lavibridge.training.cache.latents import Contents, Latents, Names
from lavibridge.training.cache.store import Store
from lavibridge.training.reporting.timing import Timing
from lavibridge.vision.base import VisionModel


@dataclass(frozen=True, kw_only=True)
class Caches:
    """The latents of the pictures, and the features of the captions if they are cached."""

    latents: Latents
    features: Features | None = None

    def close(self) -> None:
        """Write the entries that wait to be written."""
        self.latents.close()
        if self.features is not None:
            self.features.backend.close()


def open_caches(bridge: Bridge, dataset: Dataset, settings: TrainingSection) -> Caches:
    """Open the caches that a recipe asks for. Raises RecipeError if they cannot be combined with sharding."""
    features = _features(bridge, settings)  # first, as it may raise
    has_encoder = not any(weight.is_meta for weight in bridge.vision.autoencoder.parameters())
    if settings.cache is None or not has_encoder:  # without an autoencoder, nothing is ever encoded
        return Caches(latents=remembered(dataset, bridge.vision, settings), features=features)
    store, maker = latent_store(bridge, settings.cache)
    names = Contents(dataset, maker)
    latents = Latents(dataset, bridge.vision, OnDisk(store), names, settings.workers, Timing())
    return Caches(latents=latents, features=features)


def remembered(dataset: Dataset, vision: VisionModel, settings: TrainingSection) -> Latents:
    """Return latents that are cached in memory."""
    memory = Memory(settings.latent_cache_gb)
    return Latents(dataset, vision, memory, Names(), settings.workers, Timing())


def latent_store(bridge: Bridge, cache: CacheSection) -> tuple[Store, bytes]:
    """Return the folder of the latents and the maker that its keys begin with."""
    dtype = pick_dtype(cache.dtype)
    maker = latent_maker(bridge.vision, dtype)
    return Store(cache.folder / f"latents-{maker.hex()[:12]}", dtype), maker


def feature_store(bridge: Bridge, cache: CacheSection) -> tuple[Store, bytes]:
    """Return the folder of the features and the maker that its keys begin with."""
    dtype = pick_dtype(cache.dtype)
    maker = feature_maker(bridge.language, bridge.connector.reading, dtype)
    return Store(cache.folder / f"features-{maker.hex()[:12]}", dtype), maker


def _features(bridge: Bridge, settings: TrainingSection) -> Features | None:
    """Cached features, or None if each step computes its own."""
    on_disk = settings.cache is not None and settings.cache.features
    if refusal(bridge) is not None or not (on_disk or settings.feature_cache_gb > 0):
        return None
    if settings.sharding is not None:
        raise RecipeError(
            "training.sharding with cached language features: each process computes the features of its own "
            "captions, and sharded weights need all processes at once; leave training.sharding out, or set "
            "training.cache.features=false and training.feature_cache_gb=0"
        )
    backend: Backend = Memory(settings.feature_cache_gb)
    maker = b""
    if settings.cache is not None and settings.cache.features:
        store, maker = feature_store(bridge, settings.cache)
        backend = OnDisk(store)
    return Features(bridge.language, bridge.connector.reading, backend, maker)
