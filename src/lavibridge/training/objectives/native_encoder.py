"""The image model's own text encoder, from which a bridge can learn, and what it makes of captions."""

from collections.abc import Callable, Sequence

import torch

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.registry import detect
from lavibridge.core.sources import RANDOM
from lavibridge.training.cache.backend import Memory
from lavibridge.training.cache.features import Features

GIGABYTES = 1.0
"""Memory for what a language model makes of captions."""


def check_own_encoder(bridge: Bridge, asked: str) -> None:
    """Raise ModelError where the image model's own text encoder is of no known family; loads nothing."""
    config = bridge.vision.config
    try:
        if config.source == RANDOM:
            raise ModelError("a random toy has none")
        detect("language", config.source, config.revision)
    except LaviError as error:
        raise refused(bridge, asked, error) from error


def refused(bridge: Bridge, asked: str, error: LaviError) -> ModelError:
    """What is said where the own text encoder cannot be used."""
    return ModelError(
        f"{asked} needs the image model's own text encoder, and that of "
        f"'{bridge.vision.config.source}' cannot be used ({error}); leave {asked} out"
    )


def own_encoder(bridge: Bridge, asked: str) -> Bridge:
    """The image model under its own text encoder; it shares the bridge's denoiser.

    ``asked`` is the setting that needs it. Raises ModelError where it cannot be used.
    """
    try:
        return Bridge.native(bridge.vision, str(bridge.device))
    except LaviError as error:
        raise refused(bridge, asked, error) from error


def reader(bridge: Bridge) -> Callable[[Sequence[str]], TextFeatures]:
    """What a frozen language model makes of captions, kept where that can be done."""
    anew = torch.no_grad()(bridge.features)
    if bridge.connector.reading.queries is not None:
        return anew
    kept = Features(bridge.language, bridge.connector.reading, Memory(GIGABYTES), b"")
    try:
        kept.compute(("", "a caption of more tokens"))
    except ModelError:  # padding that does not stand on the right
        return anew
    return lambda captions: kept.together(captions, bridge.device)
