"""Opens the vision model with its own text encoder, from which a bridge learns."""

import torch

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import model_of_choice, native_text_encoders
from lavibridge.core.config import Config
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.single_file import locate_configuration


def check_native_encoder(vision: Config, setting: str) -> None:
    """Raise ModelError if the model of the `vision:` section has no pipeline, and therefore no text encoder.

    ``setting`` is the recipe's field that needs the encoder. Loads no weights.
    """
    options = vision.model_dump()
    source = str(options["source"])
    try:
        if source == RANDOM:
            raise ModelError("a random toy has none")
        place, revision = locate_configuration(source, options.get("config"), options.get("revision"))
        if read_model_json(place, "model_index.json", revision) is None:
            raise ModelError("the folder has no model_index.json")
    except LaviError as error:
        raise _native_encoder_error(source, setting, error) from error


def native_tokens_per_prompt(vision: Config, setting: str, max_sequence_length: int | None) -> int | None:
    """Number of tokens that the own text encoders make of every prompt; None if it depends on the prompt.

    Reads the configurations only. Arguments and errors are those of `native_bridge`.
    """
    meta = torch.device("meta")
    with meta:
        model: VisionModel = model_of_choice("vision", vision.model_dump(), meta)
        try:
            encoders = native_text_encoders(model.to(meta), max_sequence_length, unload=True)
        except LaviError as error:
            raise _native_encoder_error(model.config.source, setting, error) from error
    return encoders.tokens_per_prompt


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
    for part in (native.language, native.connector):  # the denoiser is the bridge's, and where it belongs
        part.to(bridge.device)
    return native.eval()


def _native_encoder_error(source: str, setting: str, error: LaviError) -> ModelError:
    """Make the error for a vision model whose own text encoder cannot be used."""
    return ModelError(
        f"{setting} needs the vision model's own text encoder, but that of '{source}' cannot be used "
        f"({error}): leave {setting} out"
    )
