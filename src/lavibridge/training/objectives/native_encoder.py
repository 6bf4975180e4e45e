"""Opens the vision model with its own text encoder, from which a bridge learns."""

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import native_text_encoders
from lavibridge.core.config import Config
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.sources import RANDOM, read_model_json


def check_native_encoder(vision: Config, setting: str) -> None:
    """Raise ModelError if the model of the `vision:` section has no pipeline, and therefore no text encoder.

    ``setting`` is the recipe's field that needs the encoder. Loads no weights.
    """
    options = vision.model_dump()
    source = str(options["source"])
    try:
        if source == RANDOM:
            raise ModelError("a random toy has none")
        if read_model_json(source, "model_index.json", options.get("revision")) is None:
            raise ModelError("the folder has no model_index.json")
    except LaviError as error:
        raise _native_encoder_error(source, setting, error) from error


def native_bridge(bridge: Bridge, setting: str, max_sequence_length: int | None = None) -> Bridge:
    """Open the vision model with its own text encoder; it shares the bridge's denoiser.

    ``max_sequence_length`` replaces the default of pipelines that have this argument. ``setting`` is the
    recipe's field that needs the encoder. Raises ModelError if the encoder cannot be used.
    """
    try:
        encoders = native_text_encoders(bridge.vision, max_sequence_length)
        native = Bridge.compose(encoders, bridge.vision, "identity", None, None)
    except LaviError as error:
        raise _native_encoder_error(bridge.vision.config.source, setting, error) from error
    return native.to(bridge.device).eval()


def _native_encoder_error(source: str, setting: str, error: LaviError) -> ModelError:
    """Make the error for a vision model whose own text encoder cannot be used."""
    return ModelError(
        f"{setting} needs the vision model's own text encoder, but that of '{source}' cannot be used "
        f"({error}): leave {setting} out"
    )
