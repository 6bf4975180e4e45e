"""`PromptEncoder` encodes prompts with a saved bridge, without the vision model of that bridge.

    encoder = PromptEncoder.from_pretrained("bridge.safetensors")
    encoded = encoder.encode("a (red:1.2) circle")

Another program's denoiser takes the result, such as ComfyUI's.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from lavibridge import lora
from lavibridge.bridge import choices
from lavibridge.bridge.bridge_file import DenoiserInterface
from lavibridge.bridge.saved_bridge import (
    SavedBridge,
    load_text_weights,
    locate_saved_bridge,
    read_saved_bridge,
)
from lavibridge.bridge.stored_models import check_connector_fits, warn_about_changed_model
from lavibridge.bridge.text_side import TextSide
from lavibridge.connectors.base import Connector
from lavibridge.core.device import dtype_name, pick_device
from lavibridge.generation.checks import check_word_weights, warn_about_long_prompts
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.prompt_encoding import EncodedPrompt, encode_prompts
from lavibridge.language.base import LanguageModel


class PromptEncoder(TextSide):
    """The language model and the connector of a saved bridge."""

    def __init__(
        self,
        language: LanguageModel,
        connector: Connector,
        denoiser: DenoiserInterface,
        saved: SavedBridge,
    ) -> None:
        super().__init__(language, connector)
        self.denoiser = denoiser
        """What the denoiser takes."""
        self.saved = saved
        """The bridge's files, with the LoRA of the denoiser."""

    @staticmethod
    def from_pretrained(
        source: str | PathLike[str],
        language: str | PathLike[str] | Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
    ) -> "PromptEncoder":
        """Load language model and connector of a saved bridge; no weights of a vision model.

        ``source`` is as in `Bridge.from_pretrained`. From a folder, the vision model's configuration must be
        there; a single file contains what is needed of it. ``language`` replaces the source of the language
        model by another copy of the same one (folder, hub id, GGUF file), or some of its options. Raises
        RunError if there is no bridge or its files have changed, and ModelError if the language model does
        not fit.
        """
        saved = read_saved_bridge(locate_saved_bridge(source, revision))
        denoiser = _denoiser_interface(saved)
        options = choices.replaced_options(saved.language, language)
        if dtype is not None:
            options["dtype"] = dtype_name(dtype)
        warn_about_changed_model(saved, "language", options)
        model: LanguageModel = choices.model_of_choice("language", options)
        check_connector_fits(saved, model.config.source, model.spec, denoiser.spec)
        kind, config = choices.connector_of_choice(saved.connector)
        connector: Connector = kind(config, model.spec, denoiser.spec)
        settings = choices.lora_settings_of_choice(saved.language_lora, "language_lora")
        if settings is not None:
            unread = model.unread(connector.reading)
            lora.inject_lora(model.backbone, settings, model.lora_targets, "language model", unread)
        load_text_weights(saved, model, connector)
        encoder = PromptEncoder(model, connector, denoiser, saved)
        return encoder.to(pick_device(str(device))).requires_grad_(False).eval()

    @property
    def device(self) -> torch.device:
        """The device of the connector's weights, or of the language model's if it has none."""
        return next(iter([*self.connector.parameters(), *self.language.parameters()])).device

    @torch.no_grad()
    def encode(self, prompt: str, negative: bool = False, prompt_weighting: bool = True) -> EncodedPrompt:
        """Encode one prompt, which may be empty, as `BridgePipeline` does.

        ``prompt_weighting`` reads ``(red:1.3)`` as a weight. Warns about a prompt that exceeds the token
        limit. Raises RecipeError if the prompt is not valid Unicode, or has word weights that this bridge
        cannot use.
        """
        weighted = read_emphasis(prompt, prompt_weighting, is_negative=negative)
        check_word_weights([weighted], self)
        if not negative:
            warn_about_long_prompts([weighted], self.language)
        return encode_prompts(self, [weighted], 1)[weighted]


def _denoiser_interface(saved: SavedBridge) -> DenoiserInterface:
    """Return what the denoiser takes: from the single file, or from the vision model's configuration."""
    if saved.packed is not None:
        return saved.packed.models.denoiser
    return DenoiserInterface.of(choices.model_of_choice("vision", saved.vision, torch.device("meta")))
