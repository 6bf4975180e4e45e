"""A frozen language model's features of captions, computed once: stored without padding, padded when used.

    caption --language model--> features of its real tokens, in the layers that the connector reads     stored
    batch of captions -> stored features, padded on the right to the longest

`of` computes captions one by one, so that the last bits depend on the caption alone, as those of latents do
(see `latents.py`); on a GPU that is slow for a short caption. `together` and `compute` sort captions by
length and compute many at a time, which is several times as fast and rounds differently. Only a language
model that training leaves unchanged has such features: it has no LoRA and receives no trained vectors.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Reading, TextFeatures
from lavibridge.core.log import progress_bar
from lavibridge.language.base import LanguageModel
from lavibridge.training.cache.backend import Backend
from lavibridge.training.cache.keys import caption_key
from lavibridge.training.cache.shard import Entry


def refusal(bridge: Bridge) -> str | None:
    """The reason why a bridge's language features cannot be cached, or None."""
    if lora.has_lora(bridge.language.backbone):
        return "the language model is trained (lora.language), so that its features change at every step"
    if bridge.connector.reading.queries is not None:
        return "the connector appends trained vectors to each prompt"
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
        """The features that `LanguageModel.encode` returns, but for rounding and with zeros as padding."""
        return TextFeatures.pad([from_entry(self.one(caption)) for caption in captions]).to(device)

    def together(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """The same, computing all captions that are not cached at once: faster, with other last bits."""
        found = {caption: self.backend.get(self.key(caption)) for caption in captions}
        missing = [caption for caption, entry in found.items() if entry is None]
        found |= {
            caption: self.backend.put(self.key(caption), entry) for caption, entry in self.compute(missing)
        }
        entries = [entry for entry in map(found.get, captions) if entry is not None]
        return TextFeatures.pad([from_entry(entry) for entry in entries]).to(device)

    def one(self, caption: str) -> Entry:
        """The entry of one caption, computed alone if it is not cached."""
        key = self.key(caption)
        found = self.backend.get(key)
        if found is None:
            ((_, entry),) = self.compute([caption])
            found = self.backend.put(key, entry)
        return found

    def read_ahead(self, captions: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> int:
        """Compute and cache the captions that are not cached yet; returns the number that now are.

        Ends at the first caption that does not fit into the cache, or once ``stopped``.
        """
        distinct = dict.fromkeys(captions)
        missing = [caption for caption in distinct if self.key(caption) not in self.backend]
        kept = len(distinct) - len(missing)
        if not missing:
            return kept
        with progress_bar("captions") as bar:
            task = bar.add_task("reading captions", total=len(missing), status="")
            for caption, entry in self.compute(missing):
                self.backend.put(self.key(caption), entry)
                if self.key(caption) not in self.backend:
                    break
                kept += 1
                bar.advance(task)
                if stopped():
                    break
        self.backend.flush()
        return kept

    @torch.no_grad()
    def compute(self, captions: Sequence[str]) -> Iterator[tuple[str, Entry]]:
        """Yield each distinct caption with its entry, in the order of `LanguageModel.encode_many`."""
        for caption, features in self.language.encode_many(captions, self.reading):
            yield caption, to_entry(features)


def to_entry(features: TextFeatures) -> Entry:
    """The tensors of one prompt's features, which are a batch of one without padding."""
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
