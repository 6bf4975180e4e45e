"""What a frozen language model makes of captions, computed once: kept without padding, padded when used.

    caption --language model--> features of its real tokens, in the layers that the connector reads     kept
    batch of captions -> kept features, padded on the right to the longest

Like pictures, captions are computed one by one in training, so that the last bits depend on the caption alone
(see `latents.py`); on a GPU that is slow for a short caption, and `fill.py` computes many at a time ahead.
It is for language models that training leaves as they are: without LoRA, and read rather than asked.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Reading, TextFeatures
from lavibridge.core.errors import ModelError
from lavibridge.language.base import LanguageModel
from lavibridge.training.cache.backend import Keeper
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

    def __init__(self, language: LanguageModel, reading: Reading, keeper: Keeper, maker: bytes) -> None:
        self.language = language
        self.reading = reading
        self.keeper = keeper
        self.maker = maker

    def key(self, caption: str) -> bytes:
        """The key of a caption."""
        return caption_key(self.maker, caption)

    def of(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """What `LanguageModel.encode` gives, but for the last bits and for what stands at padded places."""
        return padded([self.one(caption) for caption in captions], device)

    def together(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """The same, but what is not there yet is computed in one call: sooner, with other last bits."""
        found = {caption: self.keeper.get(self.key(caption)) for caption in captions}
        new = [caption for caption, entry in found.items() if entry is None]
        made = zip(new, self.compute(new), strict=True) if new else ()
        found |= {caption: self.keeper.put(self.key(caption), entry) for caption, entry in made}
        return padded([entry for entry in map(found.get, captions) if entry is not None], device)

    def one(self, caption: str) -> Entry:
        """What is kept of one caption."""
        key = self.key(caption)
        found = self.keeper.get(key)
        return self.keeper.put(key, self.compute([caption])[0]) if found is None else found

    def compute(self, captions: Sequence[str]) -> list[Entry]:
        """What is kept of captions, computed together."""
        with torch.no_grad():
            return without_padding(self.language.encode(captions, self.reading))


def without_padding(features: TextFeatures) -> list[Entry]:
    """The real tokens of each prompt; ModelError where padding stands before or between them."""
    lengths = _lengths(features.mask)
    others = None if features.passthrough_mask is None else _lengths(features.passthrough_mask)
    entries: list[Entry] = []
    for row, length in enumerate(lengths):
        entry: dict[str, Tensor] = {"hidden": features.hidden[row, :, :length]}
        if features.context_free is not None:
            entry["context_free"] = features.context_free[row, :, :length]
        if features.pooled is not None:
            entry["pooled"] = features.pooled[row]
        if features.passthrough_tokens is not None and others is not None:
            entry["passthrough_tokens"] = features.passthrough_tokens[row, : others[row]]
        entries.append(entry)
    return entries


def padded(entries: Sequence[Entry], device: torch.device) -> TextFeatures:
    """Entries as a batch, float32, with zeros at padded places."""
    parts = {name: [entry[name].float() for entry in entries] for name in entries[0]}
    made: Mapping[str, Tensor] = {
        name: torch.stack(values if name == "pooled" else _to_longest(values)).to(device)
        for name, values in parts.items()
    }
    return TextFeatures(
        hidden=made["hidden"],
        mask=_mask(parts["hidden"]).to(device),
        pooled=made.get("pooled"),
        context_free=made.get("context_free"),
        passthrough_tokens=made.get("passthrough_tokens"),
        passthrough_mask=_mask(parts["passthrough_tokens"]).to(device)
        if "passthrough_tokens" in parts
        else None,
    )


def _to_longest(values: Sequence[Tensor]) -> list[Tensor]:
    longest = max(value.shape[-2] for value in values)
    return [pad(value, (0, 0, 0, longest - value.shape[-2])) for value in values]


def _mask(values: Sequence[Tensor]) -> Tensor:
    lengths = torch.tensor([value.shape[-2] for value in values])
    return torch.arange(int(lengths.max())) < lengths[:, None]


def _lengths(mask: Tensor) -> list[int]:
    lengths: list[int] = mask.sum(1).tolist()
    if not all(bool(row[:length].all()) for row, length in zip(mask, lengths, strict=True)):
        raise ModelError(
            "features can only be kept where padding stands on the right, and this language model pads "
            "elsewhere: set training.cache.features=false and training.feature_cache_gb=0"
        )
    return lengths
