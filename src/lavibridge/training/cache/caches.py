"""Opens the caches that a recipe asks for.

    training.cache: null        latents and features in memory, within latent_cache_gb and feature_cache_gb
    training.cache.folder: F    F/latents-ID/ and F/features-ID/ on disk, shared by all runs that name F

ID is a hash of the model, so that you can find and remove the folders of models that you no longer use.
"""

from dataclasses import dataclass

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import RecipeError
from lavibridge.data.base import Dataset
from lavibridge.recipes.training_section import CacheSection, TrainingSection
from lavibridge.training.cache.backend import Backend, DiskBackend, MemoryBackend
from lavibridge.training.cache.features import Features, features_refusal
from lavibridge.training.cache.keys import feature_maker_key, latent_maker_key
from lavibridge.training.cache.latents import LatentContents, LatentNames, Latents
from lavibridge.training.cache.store import Store
from lavibridge.training.cache.unloading import Unloader, captions_of_run
from lavibridge.training.reporting.timing import Timing
from lavibridge.vision.base import VisionModel


@dataclass(frozen=True, kw_only=True)
class Caches:
    """The cache of the images' latents, and the cache of the captions' features, if there is one."""

    latents: Latents
    features: Features | None = None
    unloader: Unloader | None = None
    """Unloads the language model; None without a cache of features."""

    def close(self) -> None:
        """Write pending entries."""
        self.latents.close()
        if self.features is not None:
            self.features.backend.close()


def open_caches(bridge: Bridge, dataset: Dataset, settings: TrainingSection) -> Caches:
    """Open the caches that a recipe asks for. Raises RecipeError if they cannot be combined with sharding."""
    features = _features(bridge, settings)  # first, as it may raise
    captions = captions_of_run(dataset, settings.caption_dropout)
    unloader = None if features is None else Unloader(features, captions)
    has_encoder = not any(weight.is_meta for weight in bridge.vision.autoencoder.parameters())
    if settings.cache is None or not has_encoder:  # without an autoencoder, nothing is ever encoded
        latents = cache_latents_in_memory(dataset, bridge.vision, settings)
        return Caches(latents=latents, features=features, unloader=unloader)
    store, maker = latent_cache_folder(bridge, settings.cache)
    names = LatentContents(dataset, maker)
    latents = Latents(dataset, bridge.vision, DiskBackend(store), names, settings.workers, Timing())
    return Caches(latents=latents, features=features, unloader=unloader)


def cache_latents_in_memory(dataset: Dataset, vision: VisionModel, settings: TrainingSection) -> Latents:
    """Open a cache of latents in memory."""
    memory = MemoryBackend(settings.latent_cache_gb)
    return Latents(dataset, vision, memory, LatentNames(), settings.workers, Timing())


def latent_cache_folder(bridge: Bridge, cache: CacheSection) -> tuple[Store, bytes]:
    """Return the folder of the latents, and the hash of their model, which is part of each key."""
    dtype = pick_dtype(cache.dtype)
    maker = latent_maker_key(bridge.vision, dtype)
    return Store(cache.folder / f"latents-{maker.hex()[:12]}", dtype), maker


def feature_cache_folder(bridge: Bridge, cache: CacheSection) -> tuple[Store, bytes]:
    """Return the folder of the features, and the hash of their model, which is part of each key."""
    dtype = pick_dtype(cache.dtype)
    maker = feature_maker_key(bridge.language, bridge.connector.reading, dtype)
    return Store(cache.folder / f"features-{maker.hex()[:12]}", dtype), maker


def _features(bridge: Bridge, settings: TrainingSection) -> Features | None:
    """Open the cache of features; None if each step computes its own."""
    on_disk = settings.cache is not None and settings.cache.features
    if features_refusal(bridge) is not None or not (on_disk or settings.feature_cache_gb > 0):
        return None
    if settings.sharding is not None:
        raise RecipeError(
            "training.sharding does not support cached language features: each process caches the features "
            "of its own captions, but sharded weights need all processes at once. Leave training.sharding "
            "out, or set training.cache.features=false and training.feature_cache_gb=0"
        )
    backend: Backend = MemoryBackend(settings.feature_cache_gb)
    maker = b""
    if settings.cache is not None and settings.cache.features:
        store, maker = feature_cache_folder(bridge, settings.cache)
        backend = DiskBackend(store)
    return Features(bridge.language, bridge.connector.reading, backend, maker)
