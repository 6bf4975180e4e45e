"""The vision model under its own text encoder, from which a bridge learns, and its features of captions."""

from collections.abc import Callable, Sequence

import torch

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import native_text
from lavibridge.core.config import Config
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.training.cache.backend import Memory
from lavibridge.training.cache.features import Features


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


def native_bridge(bridge: Bridge, setting: str) -> Bridge:
    """The vision model under its own text encoder; it shares the bridge's denoiser.

    ``setting`` is the field of the recipe that needs it. Raises ModelError if the encoder cannot be used.
    """
    try:
        native = Bridge.compose(native_text(bridge.vision), bridge.vision, "identity", None, None)
    except LaviError as error:
        raise refused(bridge.vision.config.source, setting, error) from error
    return native.to(bridge.device).eval()


def refused(source: str, setting: str, error: LaviError) -> ModelError:
    """The error if a vision model's own text encoder cannot be used."""
    return ModelError(
        f"{setting} needs the vision model's own text encoder, and that of '{source}' cannot be used "
        f"({error}); leave {setting} out"
    )


def feature_reader(bridge: Bridge, cache_gb: float) -> Callable[[Sequence[str]], TextFeatures]:
    """A function from captions to a frozen language model's features, which it caches if it can."""
    uncached = torch.no_grad()(bridge.features)
    if bridge.connector.reading.queries is not None:
        return uncached
    cached = Features(bridge.language, bridge.connector.reading, Memory(cache_gb), b"")
    try:
        cached.compute(("", "a caption of more tokens"))
    except ModelError:  # the language model does not pad on the right
        return uncached
    return lambda captions: cached.together(captions, bridge.device)
