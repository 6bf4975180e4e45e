"""A painter: a loaded bridge, with the features of the prompts that it has read lately.

    prompt --language, alone--> Row --connector, alone--> conditioning        kept per prompt; "" always

Each prompt is read by itself, so that what it becomes does not depend on others that wait.
"""

from collections import OrderedDict
from collections.abc import Sequence
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
from lavibridge.generation import emphasis
from lavibridge.generation.asked import check_weights
from lavibridge.generation.draw import Row, encode_once, gather
from lavibridge.generation.emphasis import Weighted
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
        self._read: OrderedDict[Weighted, Read] = OrderedDict()
        self.is_fixed = not (bridge.connector.time_aware or bridge.connector.per_block)
        longest = self._read_anew(emphasis.read("a " * (2 * bridge.language.max_tokens), False))
        empty = self.read(emphasis.read("", False))
        self.width = 1 + self._tokens(longest).tokens.shape[1]
        self.keeps_tokens = all(
            self._tokens(each).tokens.shape[1] == each.row.hidden.shape[1] for each in (longest, empty)
        )
        """Whether conditioning tokens are the prompt's, one for one, so that its words name them."""
        self.least = None if bridge.connector.per_block else least_rows(bridge.vision, self.width, 2 * batch)
        """Rows of a call of the denoiser; None: each picture by itself."""

    @torch.inference_mode()
    def read(self, prompt: Weighted) -> Read:
        """A prompt's features, read once."""
        if prompt not in self._read:
            self._read[prompt] = self._read_anew(prompt)
        self._read.move_to_end(prompt)
        if len(self._read) > KEPT:
            self._read.pop(next(kept for kept in self._read if kept.text))
        return self._read[prompt]

    def condition(self, read: Read, t: Float[Tensor, ""]) -> Conditioning:
        """A prompt's conditioning at the time ``t``."""
        if read.fixed is not None:
            return read.fixed
        found: Conditioning = self.bridge.connector(gather([read.row]), t.reshape(1).to(self.bridge.device))
        return found

    def check(self, prompts: Sequence[Weighted], height: int, width: int) -> None:
        """Raise RecipeError or ModelError for what cannot be drawn."""
        try:
            self.bridge.vision.latent_shape(height, width)
        except ModelError as error:
            raise RecipeError(f"size: {error}") from None
        check_weights(prompts, self.bridge.connector)

    def count_tokens(self, prompt: Weighted) -> tuple[int, int]:
        """Tokens of a prompt that are used, and that are cut off."""
        with self.lock:
            used, cut = self.bridge.language.count_tokens([prompt.text])
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
    def _read_anew(self, prompt: Weighted) -> Read:
        bridge = self.bridge
        with self.lock:
            row = encode_once([prompt], 1, bridge.features, bridge.language.spans)[prompt]
        return Read(row=row, fixed=bridge.connector(gather([row])) if self.is_fixed else None)

    def _tokens(self, read: Read) -> Conditioning:
        with torch.inference_mode():
            return self.condition(read, self.bridge.vision.times[0])
