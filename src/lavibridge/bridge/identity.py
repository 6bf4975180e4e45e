"""Hashes a bridge in memory, over everything that its images depend on.

    language, vision    class, files (tokenizer and settings among them), options, LoRA's scales, every weight
    connector           kind, options (the read-out among them), every weight

The hash covers the weights as loaded: another number format, quantisation or merging changes it.
"""

from typing import Any

from torch import nn

from lavibridge import lora
from lavibridge.bridge.module import Bridge
from lavibridge.bridge.weight_checks import require_own_weights
from lavibridge.core import registry
from lavibridge.core.identity import card_hash, library_versions, weights_hash
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

IDENTITY_LIBRARIES = ("lavibridge", "torch", "transformers", "tokenizers", "diffusers", "peft")
"""Libraries whose version may change an image."""


def bridge_identity(bridge: Bridge) -> dict[str, str]:
    """Return a short hash of each part of a bridge; takes seconds for billions of weights.

    Raises ModelError for an offloaded denoiser, whose weights are not in memory.
    """
    require_own_weights(bridge, "identify")
    bridge.language.load()
    connector = bridge.connector
    options: dict[str, Any] = connector.config.model_dump(mode="json")
    return {
        "language": _model(bridge.language),
        "connector": _part(connector, registry.kind_of("connectors", connector), options),
        "vision": _model(bridge.vision),
    }


def bridge_environment(bridge: Bridge) -> dict[str, str]:
    """Return the library versions and the kind of device, on which the bits of an image also depend."""
    return {**library_versions(*IDENTITY_LIBRARIES), "device": bridge.device.type}


def _model(model: LanguageModel | VisionModel) -> str:
    return _part(model, model.identity(), lora.active_lora(model.backbone))


def _part(module: nn.Module, *settings: Any) -> str:
    return card_hash([*settings, weights_hash(module)])
