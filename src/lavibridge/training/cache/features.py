"""Caches a frozen language model's features of captions, stored without padding.

    caption --language model--> features of its real tokens, in the layers that the connector reads --> cache
    batch of captions --cache--> features, padded on the right to the longest

`of` computes captions one by one, so that their bits depend on the caption alone, like those of latents (see
`latents.py`); on a GPU this is slow for short captions. `together` and `compute` sort captions by length and
compute many at a time, which is several times as fast but rounds differently. Features can only be cached if
training does not change them: the language model has no LoRA and the connector no learned queries.
"""

from collections.abc import Callable, Iterator, Sequence
from threading import RLock

import torch
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import ReadingSpec, TextFeatures
from lavibridge.core.log import progress_bar
from lavibridge.language.base import LanguageModel
from lavibridge.training.cache.backend import Backend
from lavibridge.training.cache.keys import caption_key
from lavibridge.training.cache.shard import Entry

REVISED_TOGETHER = 1024
"""Captions that a proxy revises before the first of them is encoded and cached."""


def features_refusal(bridge: Bridge) -> str | None:
    """The reason why a bridge's language features cannot be cached, or None."""
    if lora.has_lora(bridge.language.backbone):
        return "the language model has LoRA (lora.language), so its features change at every step"
    if bridge.connector.reading.queries is not None:
        return "the connector appends learned queries to each prompt, so the features change at every step"
    return None


class Features:
    """One language model's features of captions."""

    def __init__(self, language: LanguageModel, reading: ReadingSpec, backend: Backend, maker: bytes) -> None:
        self.language = language
        self.reading = reading
        self.backend = backend
        self.maker = maker
        self.reading_alone = RLock()
        """Held while the language model reads a caption alone."""

    def key(self, caption: str) -> bytes:
        """The key of a caption."""
        return caption_key(self.maker, caption)

    def of(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """Return the features as `LanguageModel.encode` does, up to rounding, with zeros as padding."""
        return TextFeatures.pad([features_from_entry(self.one(caption)) for caption in captions]).to(device)

    def together(self, captions: Sequence[str], device: torch.device) -> TextFeatures:
        """Return the same, but compute all missing captions together: faster, with other rounding."""
        found = {caption: self.backend.get(self.key(caption)) for caption in captions}
        missing = [caption for caption, entry in found.items() if entry is None]
        found |= {
            caption: self.backend.put(self.key(caption), entry) for caption, entry in self.compute(missing)
        }
        entries = [entry for entry in map(found.get, captions) if entry is not None]
        return TextFeatures.pad([features_from_entry(entry) for entry in entries]).to(device)

    def one(self, caption: str) -> Entry:
        """Return the entry of one caption; computes it alone if it is not cached."""
        key = self.key(caption)
        found = self.backend.get(key)
        if found is None:
            with self.reading_alone:
                ((_, entry),) = self.compute([caption])
            found = self.backend.put(key, entry)
        return found

    def read_ahead(self, captions: Sequence[str], stopped: Callable[[], bool] = lambda: False) -> int:
        """Compute and cache captions that are not cached yet; returns the number of cached captions.

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
        """Yield each distinct caption with its entry, in the order of `LanguageModel.encode_many`.

        A proxy revises the captions first, `REVISED_TOGETHER` at a time.
        """
        step = len(captions) if self.language.config.proxy is None else REVISED_TOGETHER
        for start in range(0, len(captions), max(1, step)):
            by_text: dict[str, list[str]] = {}
            part = list(dict.fromkeys(captions[start : start + step]))
            for caption, text in zip(part, self.language.revise(part), strict=True):
                by_text.setdefault(text, []).append(caption)
            for text, features in self.language.encode_many(list(by_text), self.reading):
                for caption in by_text[text]:
                    yield caption, features_to_entry(features)


def features_to_entry(features: TextFeatures) -> Entry:
    """The tensors of one prompt's features; ``features`` is a batch of one without padding."""
    found = {
        "hidden": features.hidden,
        "context_free": features.context_free,
        "pooled": features.pooled,
        "passthrough_tokens": features.passthrough_tokens,
    }
    return {name: value[0] for name, value in found.items() if value is not None}


def features_from_entry(entry: Entry) -> TextFeatures:
    """The features of one prompt in float32, as a batch of one."""
    values = {name: value[None].float() for name, value in entry.items()}
    passthrough = values.get("passthrough_tokens")
    return TextFeatures(
        **values,
        mask=_all_real(values["hidden"]),
        passthrough_mask=None if passthrough is None else _all_real(passthrough),
    )


def _all_real(values: Tensor) -> Tensor:
    return torch.ones(1, values.shape[-2], dtype=torch.bool)
