"""The vision model under its own text encoder, from which a bridge learns, and readers of captions."""

from collections.abc import Sequence

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import native_text_encoders
from lavibridge.core.config import Config
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.log import console
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.recipes.training_section import CacheSection
from lavibridge.training.cache.backend import Backend, Memory, MemoryOverDisk, OnDisk
from lavibridge.training.cache.caches import feature_store
from lavibridge.training.cache.features import Features, refusal


def check_native_encoder(vision: Config, setting: str) -> None:
    """Raise ModelError if the model of the `vision:` section has no pipeline, and so no text encoder.

    ``setting`` is the field of the recipe that needs it. Loads no weights.
    """
    options = vision.model_dump()
    source = str(options["source"])
    try:
        if source == RANDOM:
            raise ModelError("a random toy has none")
        if read_model_json(source, "model_index.json", options.get("revision")) is None:
            raise ModelError("the folder has no model_index.json")
    except LaviError as error:
        raise refused(source, setting, error) from error


def native_bridge(bridge: Bridge, setting: str, max_sequence_length: int | None = None) -> Bridge:
    """The vision model under its own text encoder; it shares the bridge's denoiser.

    ``max_sequence_length`` replaces the pipeline's default, where it has one. ``setting`` is the field of
    the recipe that needs the encoder. Raises ModelError if the encoder cannot be used.
    """
    try:
        encoders = native_text_encoders(bridge.vision, max_sequence_length)
        native = Bridge.compose(encoders, bridge.vision, "identity", None, None)
    except LaviError as error:
        raise refused(bridge.vision.config.source, setting, error) from error
    return native.to(bridge.device).eval()


def refused(source: str, setting: str, error: LaviError) -> ModelError:
    """The error if a vision model's own text encoder cannot be used."""
    return ModelError(
        f"{setting} needs the vision model's own text encoder, and that of '{source}' cannot be used "
        f"({error}); leave {setting} out"
    )


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

    def read_ahead(self, captions: Sequence[str]) -> None:
        """Read a whole set of captions, sorted by length, and cache as many as there is room for.

        Shows a progress bar, and a note if some captions do not fit and are read again in every epoch.
        """
        cached, distinct = self.features.read_ahead(captions), len(set(captions))
        if cached < distinct:
            console.print(
                f"note: the cache holds the features of {cached:,} of {distinct:,} captions; the others are "
                "read whenever they are used: raise feature_cache_gb, or name training.cache.folder",
                soft_wrap=True,
            )

    def close(self) -> None:
        """Write features that wait to be written to disk, and free the memory."""
        self.features.backend.close()


def feature_reader(bridge: Bridge, cache_gb: float, cache: CacheSection | None = None) -> FeatureReader:
    """A reader that caches up to ``cache_gb`` gigabytes in memory, without gradients.

    With ``cache``, the recipe's `training.cache`, features also go to that folder, under the keys that
    training uses, unless LoRA or trained queries change them. Features of trained queries are not cached at
    all.
    """
    if bridge.connector.reading.queries is not None:
        return FeatureReader(bridge, Memory(0))
    memory = Memory(cache_gb)
    if cache is None or not cache.features or refusal(bridge) is not None:
        return FeatureReader(bridge, memory)
    store, maker = feature_store(bridge, cache)
    return FeatureReader(bridge, MemoryOverDisk(memory, OnDisk(store)), maker)
