"""Fills a cache folder before training; any number of processes share the work.

    images      process i of N encodes images i, i + N, ... in every form that training can visit
    captions    a caption's key decides which process computes it, so that none is computed twice

Existing entries stay unchanged, so the same command continues after an interruption. Captions are sorted by
length and computed many at a time, so their last bits differ from those that training computes one by one;
every run that uses the folder reads the same values.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lavibridge.bridge import Bridge
from lavibridge.core.lock import hold_lock
from lavibridge.core.log import progress_bar
from lavibridge.core.process_rank import ProcessRank
from lavibridge.data.base import Dataset
from lavibridge.recipes.training_section import CacheSection, TrainingSection
from lavibridge.training.cache.backend import DiskBackend
from lavibridge.training.cache.caches import feature_cache_folder, latent_cache_folder
from lavibridge.training.cache.features import Features
from lavibridge.training.cache.latents import LatentContents, Latents
from lavibridge.training.cache.store import Store
from lavibridge.training.data.sampler import Visit, VisitSampler, mentions_a_side
from lavibridge.training.reporting.timing import Timing

CHUNK = 64
"""Number of images whose keys are looked up together."""
WINDOW = 1024
"""Number of captions that are sorted by length together."""


@dataclass(frozen=True, kw_only=True)
class PrecomputedFolder:
    """The state of a folder after a process has done its share."""

    folder: Path
    computed: int
    """Number of entries that this process computed."""
    entries: int
    bytes: int


def precompute_latents(
    bridge: Bridge,
    dataset: Dataset,
    settings: TrainingSection,
    cache: CacheSection,
    size: tuple[int, int],
    share: ProcessRank,
) -> PrecomputedFolder:
    """Encode this process's images. Raises CacheError if they cannot be written."""
    store, maker = latent_cache_folder(bridge, cache)
    names = LatentContents(dataset, maker)
    latents = Latents(dataset, bridge.vision, DiskBackend(store), names, settings.workers, Timing())
    visits = VisitSampler(dataset, settings.seed, size, bridge.vision.unit, settings.batch)
    indices = range(share.rank, len(dataset), share.world_size)
    made = 0
    with _exclusive(store, share), closing(latents):
        with progress_bar("pictures") as bar:
            task = bar.add_task("encoding", total=len(indices), status="")
            for start in range(0, len(indices), CHUNK):
                chunk = indices[start : start + CHUNK]
                forms = [form for index in chunk for form in _forms_of(visits, index)]
                keyed = zip(latents.keys(forms), forms, strict=True)
                missing = {key: form for key, form in keyed if key not in store}
                for key, entry in latents.entries(missing):
                    store.put(key, entry)
                    made += 1
                    bar.advance(task, len(chunk) / len(missing))
                    bar.update(task, status=f"{made:,} new")
                bar.update(task, completed=start + len(chunk))
                if store.is_due:
                    store.flush()
        return _written(store, made)


def _forms_of(visits: VisitSampler, index: int) -> list[Visit]:
    """Every form in which training can visit an image: unchanged, and mirrored if that is allowed."""
    plain = Visit(index=index, size=visits.size_of(index))
    if not visits.flip or mentions_a_side(visits.dataset.sample(index).captions):
        return [plain]
    return [plain, Visit(index=index, size=plain.size, flipped=True)]


def precompute_features(
    bridge: Bridge, dataset: Dataset, settings: TrainingSection, cache: CacheSection, share: ProcessRank
) -> PrecomputedFolder:
    """Compute this process's captions, and the empty one. Raises CacheError if they cannot be written."""
    store, maker = feature_cache_folder(bridge, cache)
    features = Features(bridge.language, bridge.connector.reading, DiskBackend(store), maker)
    made = 0
    with _exclusive(store, share), closing(features.backend):
        with progress_bar("pictures") as bar:
            task = bar.add_task("reading captions", total=len(dataset), status="")
            for window in _windows(features, dataset, settings, share):
                missing = {caption: key for caption, key in window.captions.items() if key not in store}
                for caption, entry in features.compute(list(missing)):
                    store.put(missing[caption], entry)
                    made += 1
                    bar.update(task, status=f"{made:,} new")
                    if store.is_due:
                        store.flush()
                bar.update(task, completed=window.until)
        return _written(store, made)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """One process's captions of consecutive images, and the index after the last image."""

    captions: dict[str, bytes]
    until: int


def _windows(
    features: Features, dataset: Dataset, settings: TrainingSection, share: ProcessRank
) -> Iterator[_Window]:
    captions: dict[str, bytes] = {}

    def take(texts: Sequence[str]) -> None:
        for text in texts:
            key = features.key(text)
            if int.from_bytes(key, "big") % share.world_size == share.rank:
                captions[text] = key

    if settings.caption_dropout > 0:
        take([""])
    for index in range(len(dataset)):
        take(dataset.sample(index).captions)
        if len(captions) >= WINDOW or index + 1 == len(dataset):
            yield _Window(captions=captions, until=index + 1)
            captions = {}


@contextmanager
def _exclusive(store: Store, share: ProcessRank) -> Iterator[None]:
    """Lock a folder while this command fills it. Its processes share the lock; runs may use the folder."""
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(store.folder, share))
        except OSError as error:
            raise store.unwritable(error) from error
        yield


def _written(store: Store, made: int) -> PrecomputedFolder:
    store.flush()
    return PrecomputedFolder(folder=store.folder, computed=made, entries=len(store), bytes=store.bytes())
