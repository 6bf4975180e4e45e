"""A bridge as a server draws with it: prompts encoded one by one and kept, and a layout that keeps bits.

    prompt --language model, alone--> EncodedPrompt        the latest prompts are kept, and "" always

Each prompt is encoded by itself, so that its features do not depend on other requests.
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from lavibridge.bridge import Bridge
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.files import models_folder, resolve_source
from lavibridge.generation import emphasis
from lavibridge.generation.checks import check_word_weights
from lavibridge.generation.denoise import SEPARATE_DENOISER_CALLS, DenoiserCalls, SharedDenoiserCalls
from lavibridge.generation.emphasis import WeightedPrompt
from lavibridge.generation.prompt_encoding import EncodedPrompt, encode_prompts
from lavibridge.serve.engine.least_rows import find_least_rows

KEPT = 256
"""Prompts whose features are kept."""


class ServedModel:
    """A bridge that a server has loaded."""

    def __init__(self, name: str, bridge: Bridge, batch_size: int) -> None:
        """Encodes the longest possible prompt to learn the width of a shared call."""
        self.name = name
        self.bridge = bridge.eval()
        self.lock = Lock()  # a tokenizer serves one thread at a time
        self._encoded: OrderedDict[WeightedPrompt, EncodedPrompt] = OrderedDict()
        longest = self._encode(emphasis.read_emphasis("a " * (2 * bridge.language.max_tokens), False))
        empty = self.encode(emphasis.read_emphasis("", False, is_negative=True))
        tokens = [self._tokens(each) for each in (longest, empty)]
        self.width = 1 + tokens[0]
        self.keeps_tokens = tokens == [each.features.hidden.shape[2] for each in (longest, empty)]
        """Whether conditioning tokens are the prompt's, one for one, so that its words name them."""
        self.least_rows = (
            None if bridge.connector.per_block else find_least_rows(bridge.vision, self.width, 2 * batch_size)
        )
        """Rows of a shared call of the denoiser; None: a call for each picture."""

    @property
    def layout(self) -> DenoiserCalls:
        """Which rows share a call of the denoiser."""
        if self.least_rows is None:
            return SEPARATE_DENOISER_CALLS
        return SharedDenoiserCalls(width=self.width, least_rows=self.least_rows)

    @torch.inference_mode()
    def encode(self, prompt: WeightedPrompt) -> EncodedPrompt:
        """A prompt's features, encoded once while it is kept."""
        if prompt not in self._encoded:
            self._encoded[prompt] = self._encode(prompt)
        self._encoded.move_to_end(prompt)
        if len(self._encoded) > KEPT:
            self._encoded.pop(next(kept for kept in self._encoded if kept.text))
        return self._encoded[prompt]

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """The characters that each token of a prompt stands for."""
        with self.lock:
            return self.bridge.language.spans(prompt)

    def check(self, prompts: Sequence[WeightedPrompt], height: int, width: int) -> None:
        """Raise RecipeError for a size or word weights that the bridge cannot draw."""
        try:
            self.bridge.vision.latent_shape(height, width)
        except ModelError as error:
            raise RecipeError(f"size: {error}") from None
        check_word_weights(prompts, self.bridge.connector)

    def count_tokens(self, prompt: WeightedPrompt) -> tuple[int, int]:
        """Tokens of a prompt that are used, and that are cut off."""
        with self.lock:
            used, cut = self.bridge.language.count_tokens([prompt.text])
        return used[0], cut[0]

    @property
    def has_checker(self) -> bool:
        """Whether it draws the miniature world, whose exact checker scores its pictures."""
        source = self.bridge.vision.config.source
        try:
            return Path(resolve_source(source)).parent == models_folder()
        except ModelError:
            return False

    def describe(self) -> dict[str, Any]:
        """What a client may know of it."""
        language, vision = self.bridge.language, self.bridge.vision
        return {
            "language": f"{registry.kind_of('language', language)} {Path(language.config.source).name}",
            "connector": registry.kind_of("connectors", self.bridge.connector),
            "vision": f"{registry.kind_of('vision', vision)} {Path(vision.config.source).name}",
            "default_size": f"{vision.default_size}x{vision.default_size}",
            "default_guidance": self.bridge.default_guidance,
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
    def _tokens(self, prompt: EncodedPrompt) -> int:
        """The number of a prompt's conditioning tokens."""
        t = self.bridge.vision.times[:1].to(self.bridge.device)
        return int(self.bridge.connector(prompt.features, t).mask.sum())
