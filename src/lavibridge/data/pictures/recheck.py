"""Checks data from scratch: compares every file with the index and reads the changed ones again."""

from lavibridge.core import registry
from lavibridge.core.lock import hold_lock
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.indexed import IndexedPictures, index_of
from lavibridge.data.pictures.rejected import RejectedPictures


def recheck(kind: str, config: Dataset.Config) -> Dataset:
    """Open data without trusting the index. Raises DataError if too many pictures are unusable."""
    component = registry.load_kind("data", kind)
    if issubclass(component, IndexedPictures) and isinstance(config, IndexedPictures.Config):
        index = index_of(component, config)
        if index.folder.is_dir():
            with hold_lock(index.folder, waits=f"another process is checking the data of {index.folder}"):
                index.forget_freshness()
    opened: Dataset = component(config, RejectedPictures())
    return opened
