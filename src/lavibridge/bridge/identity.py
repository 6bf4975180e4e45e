"""Hashes of a bridge in memory, over everything that its pictures depend on.

    language, vision    class, files (tokenizer and settings among them), options, LoRA's scales, every weight
    connector           kind, options (the read-out among them), every weight

Weights are hashed as they were loaded: another number format, quantised or merged ones are other weights.
"""

from typing import Any

from torch import nn

from lavibridge import lora
from lavibridge.bridge.module import Bridge
from lavibridge.core import registry
from lavibridge.core.identity import card_hash, library_versions
from lavibridge.core.tensors import weights_hash
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

IDENTITY_LIBRARIES = ("lavibridge", "torch", "transformers", "tokenizers", "diffusers", "peft")
"""Whose versions may change a picture."""


def bridge_identity(bridge: Bridge) -> dict[str, str]:
    """A short hash for each part of a bridge; seconds for billions of weights."""
    connector = bridge.connector
    options: dict[str, Any] = connector.config.model_dump(mode="json")
    return {
        "language": _model(bridge.language),
        "connector": _part(connector, registry.kind_of("connectors", connector), options),
        "vision": _model(bridge.vision),
    }


def bridge_environment(bridge: Bridge) -> dict[str, str]:
    """What else the bits of its pictures depend on: libraries, and the kind of device."""
    return {**library_versions(*IDENTITY_LIBRARIES), "device": bridge.device.type}


def _model(model: LanguageModel | VisionModel) -> str:
    return _part(model, model.identity(), lora.active_lora(model.backbone))


def _part(module: nn.Module, *settings: Any) -> str:
    return card_hash([*settings, weights_hash(module)])
