"""Check data from the ground: every file compared with the index, the changed ones read again."""

from lavibridge.core import registry
from lavibridge.core.lock import hold
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.indexed import Indexed, index_of
from lavibridge.data.pictures.rejected import Rejected


def recheck(kind: str, config: Dataset.Config) -> Dataset:
    """Open data with nothing taken as fresh; DataError where too many of its pictures cannot be used."""
    component = registry.load("data", kind)
    if issubclass(component, Indexed) and isinstance(config, Indexed.Config):
        index = index_of(component, config)
        if index.folder.is_dir():
            with hold(index.folder, waits=f"the data of {index.folder} is being checked"):
                index.forget_freshness()
    return open_dataset(kind, config, Rejected())
