"""A painter: a loaded bridge, with the features of the prompts that it has read lately.

    prompt --language, alone--> Row --connector, alone--> conditioning        kept per prompt; "" always

Each prompt is read by itself, so that what it becomes does not depend on others that wait.
"""

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.core import registry
from lavibridge.core.contracts import Conditioning
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.files import models_folder, resolve_source
from lavibridge.generation.draw import Row, encode_once, gather
from lavibridge.generation.emphasis import parse
from lavibridge.serve.engine.rows import least_rows

KEPT = 256
"""Prompts whose features are kept."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """A prompt as a painter has read it."""

    row: Row
    fixed: Conditioning | None
    """Its conditioning; None where that depends on the time or speaks to single layers."""


class Painter:
    """A bridge that draws for a server."""

    def __init__(self, name: str, bridge: Bridge, batch: int) -> None:
        """Reads the longest prompt there can be, to know how wide all are made."""
        self.name = name
        self.bridge = bridge.eval()
        self.lock = Lock()  # tokenizers serve one thread at a time
        self._read: OrderedDict[str, Read] = OrderedDict()
        self.is_fixed = not (bridge.connector.time_aware or bridge.connector.per_block)
        longest, empty = self._read_anew("a " * (2 * bridge.language.max_tokens)), self.read("")
        self.width = 1 + self._tokens(longest).tokens.shape[1]
        self.keeps_tokens = all(
            self._tokens(each).tokens.shape[1] == each.row.hidden.shape[1] for each in (longest, empty)
        )
        """Whether conditioning tokens are the prompt's, one for one, so that its words name them."""
        self.least = None if bridge.connector.per_block else least_rows(bridge.vision, self.width, 2 * batch)
        """Rows of a call of the denoiser; None: each picture by itself."""

    @torch.inference_mode()
    def read(self, prompt: str) -> Read:
        """A prompt's features, read once."""
        if prompt not in self._read:
            self._read[prompt] = self._read_anew(prompt)
        self._read.move_to_end(prompt)
        if len(self._read) > KEPT:
            self._read.pop(next(text for text in self._read if text))
        return self._read[prompt]

    def condition(self, read: Read, t: Float[Tensor, ""]) -> Conditioning:
        """A prompt's conditioning at the time ``t``."""
        if read.fixed is not None:
            return read.fixed
        found: Conditioning = self.bridge.connector(gather([read.row]), t.reshape(1).to(self.bridge.device))
        return found

    def check(self, prompt: str, height: int, width: int) -> None:
        """Raise RecipeError or ModelError for what cannot be drawn."""
        try:
            self.bridge.vision.latent_shape(height, width)
        except ModelError as error:
            raise RecipeError(f"size: {error}") from None
        if not parse(prompt).is_plain and self.bridge.connector.reading.queries is not None:
            raise RecipeError(
                f"'{self.name}' asks its language model instead of reading its tokens, so that weights such "
                "as (word:1.2) have nothing to act on: leave them out"
            )

    def count_tokens(self, prompt: str) -> tuple[int, int]:
        """Tokens of a prompt that are used, and that are cut off."""
        with self.lock:
            used, cut = self.bridge.language.count_tokens([parse(prompt).text])
        return used[0], cut[0]

    @property
    def is_of_the_world(self) -> bool:
        """Whether its pictures are of the miniature world, whose checker can judge them."""
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
            "explains": bool(vision.spec.blocks),
            "judges": self.is_of_the_world,
            "batches": self.least is not None,
        }

    @torch.inference_mode()
    def _read_anew(self, prompt: str) -> Read:
        bridge = self.bridge
        with self.lock:
            row = encode_once([prompt], 1, bridge.features, bridge.language.spans)[prompt]
        return Read(row=row, fixed=bridge.connector(gather([row])) if self.is_fixed else None)

    def _tokens(self, read: Read) -> Conditioning:
        with torch.inference_mode():
            return self.condition(read, self.bridge.vision.times[0])
