"""A bridge in a server: a cache of encoded prompts, and denoiser calls in which an image keeps its bits.

    prompt --language model--> EncodedPrompt        the cache holds the latest prompts, and always ""

The language model encodes each prompt in a call of its own, so its features do not depend on other requests.
"""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from lavibridge.bridge import Bridge
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.paths import models_folder
from lavibridge.core.sources import resolve_source
from lavibridge.generation import emphasis
from lavibridge.generation.checks import check_word_weights
from lavibridge.generation.denoise import SEPARATE_DENOISER_CALLS, DenoiserCalls, SharedDenoiserCalls
from lavibridge.generation.emphasis import WeightedPrompt
from lavibridge.generation.prompt_encoding import EncodedPrompt, encode_prompts
from lavibridge.serve.engine.least_rows import find_least_rows

_KEPT = 256
"""Maximum number of prompts in the cache."""


class ServedModel:
    """A bridge that a server has loaded."""

    def __init__(
        self, name: str, bridge: Bridge, batch_size: int, lock: AbstractContextManager[bool] | None = None
    ) -> None:
        """Encode the longest possible prompt to find the width of a shared call.

        Bridges that share a language model share its ``lock``, as a tokenizer is not thread-safe.
        """
        self.name = name
        self.bridge = bridge.eval()
        self.lock: AbstractContextManager[bool] = Lock() if lock is None else lock
        self._encoded: OrderedDict[WeightedPrompt, EncodedPrompt] = OrderedDict()
        longest = self._encode_longest()
        empty = self.encode(emphasis.read_emphasis("", False, is_negative=True))
        tokens = [self._tokens(each) for each in (longest, empty)]
        self.width = 1 + tokens[0]
        self.keeps_tokens = tokens == [each.features.hidden.shape[2] for each in (longest, empty)]
        """Whether conditioning tokens match the prompt's tokens one to one, so that words can label them."""
        self.least_rows = (
            None if bridge.connector.per_block else find_least_rows(bridge.vision, self.width, 2 * batch_size)
        )
        """Minimum rows of a shared call of the denoiser; None means separate calls for each image."""

    @property
    def layout(self) -> DenoiserCalls:
        """How the rows of the images are grouped into calls of the denoiser."""
        if self.least_rows is None:
            return SEPARATE_DENOISER_CALLS
        return SharedDenoiserCalls(width=self.width, least_rows=self.least_rows)

    @torch.inference_mode()
    def encode(self, prompt: WeightedPrompt) -> EncodedPrompt:
        """Return a prompt's features, from the cache if possible."""
        if prompt not in self._encoded:
            self._encoded[prompt] = self._encode(prompt)
        self._encoded.move_to_end(prompt)
        if len(self._encoded) > _KEPT:
            self._encoded.pop(next(kept for kept in self._encoded if kept.text))
        return self._encoded[prompt]

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Return the (start, end) characters of each token of a prompt."""
        with self.lock:
            return self.bridge.language.spans(prompt)

    def revise(self, prompt: WeightedPrompt) -> str:
        """Return the text that the language model reads. Raises RemoteModelError as its `revise` does."""
        return self.bridge.language.revise([prompt.text])[0]

    def check(self, prompts: Sequence[WeightedPrompt], height: int, width: int) -> None:
        """Raise RecipeError for a size or for word weights that the bridge does not support."""
        try:
            self.bridge.vision.latent_shape(height, width)
        except ModelError as error:
            raise RecipeError(f"size: {error}") from None
        check_word_weights(prompts, self.bridge)

    def count_tokens(self, text: str) -> tuple[int, int]:
        """Return the numbers of tokens of a text that are used and that are cut off; no proxy revises it."""
        with self.lock:
            used, cut = self.bridge.language.count_tokens([text])
        return used[0], cut[0]

    @property
    def has_checker(self) -> bool:
        """Whether the model generates the miniature world, whose checker verifies the images."""
        source = self.bridge.vision.config.source
        try:
            return Path(resolve_source(source)).parent == models_folder()
        except ModelError:
            return False

    def describe(self) -> dict[str, Any]:
        """Return the public description of the model."""
        language, vision = self.bridge.language, self.bridge.vision
        return {
            "language": f"{registry.kind_of('language', language)} {Path(language.config.source).name}",
            "connector": registry.kind_of("connectors", self.bridge.connector),
            "vision": f"{registry.kind_of('vision', vision)} {Path(vision.config.source).name}",
            "default_size": f"{vision.default_size}x{vision.default_size}",
            "default_guidance_scale": self.bridge.default_guidance_scale,
            "max_tokens": language.max_tokens,
            "has_attention_maps": bool(vision.spec.blocks),
            "has_checker": self.has_checker,
            "shares_calls": self.least_rows is not None,
        }

    @torch.inference_mode()
    def _encode(self, prompt: WeightedPrompt) -> EncodedPrompt:
        with self.lock:
            return encode_prompts(self.bridge, [prompt], 1)[prompt]

    @torch.inference_mode()
    def _encode_longest(self) -> EncodedPrompt:
        """Encode more words than the language model reads; no proxy revises them."""
        language = self.bridge.language
        with self.lock:
            features = language.encode(["a " * (2 * language.max_tokens)], self.bridge.connector.reading)
        return EncodedPrompt(features.split()[0])

    @torch.inference_mode()
    def _tokens(self, prompt: EncodedPrompt) -> int:
        """Return the number of a prompt's conditioning tokens."""
        t = self.bridge.vision.times[:1].to(self.bridge.device)
        return int(self.bridge.connector(prompt.features, t).mask.sum())
