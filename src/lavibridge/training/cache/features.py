"""What a frozen language model makes of captions, computed once: kept without padding, padded when used.

    caption --language model--> features of its real tokens, in the layers that the connector reads     kept
    batch of captions -> kept features, padded on the right to the longest

Like pictures, captions are computed one by one in training, so that the last bits depend on the caption alone
(see `latents.py`); on a GPU that is slow for a short caption, and `fill.py` computes many at a time ahead.
It is for language models that training leaves as they are: without LoRA, and read rather than asked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Reading, TextFeatures
from lavibridge.language.base import LanguageModel
from lavibridge.training.cache.backend import Backend
from lavibridge.training.cache.keys import caption_key
from lavibridge.training.cache.shard import Entry


def refusal(bridge: Bridge) -> str | None:
    """Why a bridge's language features cannot be kept, or None."""
    if lora.has_lora(bridge.language.backbone):
        return "the language model is trained (lora.language), so that its features change at every step"
    if bridge.connector.reading.queries is not None:
        return "the connector asks the language model with vectors that are trained"
    return None


class Features:
    """Features of captions under one language model."""

    def __init__(self, language: LanguageModel, reading: Reading, backend: Backend, maker: bytes) -> None:
        self.language = language
        self.reading = reading
        self.backend = backend
        self.maker = maker

    def key(self, caption: str) -> bytes:
        """The key of a caption."""
        return caption_key(self.maker, caption)

    def of(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """What `LanguageModel.encode` gives, but for the last bits and for what stands at padded places."""
        return TextFeatures.pad([from_entry(self.one(caption)) for caption in captions]).to(device)

    def together(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """The same, but what is not there yet is computed in one call: sooner, with other last bits."""
        found = {caption: self.backend.get(self.key(caption)) for caption in captions}
        new = [caption for caption, entry in found.items() if entry is None]
        made = zip(new, self.compute(new), strict=True) if new else ()
        found |= {caption: self.backend.put(self.key(caption), entry) for caption, entry in made}
        entries = [entry for entry in map(found.get, captions) if entry is not None]
        return TextFeatures.pad([from_entry(entry) for entry in entries]).to(device)

    def one(self, caption: str) -> Entry:
        """What is kept of one caption."""
        key = self.key(caption)
        found = self.backend.get(key)
        return self.backend.put(key, self.compute([caption])[0]) if found is None else found

    def compute(self, captions: Sequence[str]) -> list[Entry]:
        """What is kept of captions, computed together."""
        with torch.no_grad():
            return [to_entry(each) for each in self.language.encode(captions, self.reading).split()]


def to_entry(features: TextFeatures) -> Entry:
    """What is kept of one prompt's features, a batch of one without padding."""
    found = {
        "hidden": features.hidden,
        "context_free": features.context_free,
        "pooled": features.pooled,
        "passthrough_tokens": features.passthrough_tokens,
    }
    return {name: value[0] for name, value in found.items() if value is not None}


def from_entry(entry: Entry) -> TextFeatures:
    """The features of one prompt, float32."""
    values = {name: value[None].float() for name, value in entry.items()}
    passthrough = values.get("passthrough_tokens")
    return TextFeatures(
        **values,
        mask=_all_real(values["hidden"]),
        passthrough_mask=None if passthrough is None else _all_real(passthrough),
    )


def _all_real(values: Tensor) -> Tensor:
    return torch.ones(1, values.shape[-2], dtype=torch.bool)
