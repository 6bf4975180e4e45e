"""Which tokens each region of a picture attended to: its cross-attention, watched from outside.

    softmax(q k^T / sqrt(d))      of every cross-attention layer, at every step, under the prompt
    map of a token                mean over heads, layers and steps, brought to one size

The layers' inputs are looked at by hooks that return nothing, so that the picture is the same bit by bit.
Where text and picture attend to each other jointly (SD3, FLUX) there are no such layers, and no maps.

Tang et al. 2022, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", arXiv 2210.04885.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lavibridge.vision.base import VisionModel

MOST_SIDE = 32
"""Largest side of a map."""


class Attended:
    """The attention of one picture, collected while it is drawn."""

    def __init__(self, vision: VisionModel, shape: tuple[int, int, int]) -> None:
        self.vision = vision
        height, width = shape[1:]
        shrink = max(1.0, max(height, width) / MOST_SIDE)
        self.ratio = height / width
        self.size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        self.total: Float[Tensor, "token h w"] | None = None
        self.count = 0

    @property
    def is_known(self) -> bool:
        """Whether any layer could be watched."""
        return self.count > 0

    @contextmanager
    def watching(self, row: int, tokens: int) -> Iterator[None]:
        """Watch one call of the denoiser: the picture's row of the call, and its number of tokens."""
        handles = [
            self.vision.backbone.get_submodule(name).register_forward_pre_hook(
                self._noting(row, tokens), with_kwargs=True
            )
            for name in self.vision.spec.blocks
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def by_word(self, prompt: str, spans: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """One map for each word of the prompt, and one for the tokens that are no word's."""
        maps = self._maps()
        words = [(found.group(), found.span()) for found in re.finditer(r"\S+", prompt)]
        owners = [_owner(span, [place for _, place in words]) for span in spans[: len(maps)]]
        named = []
        for index, (word, _) in enumerate(words):
            own = [i for i, owner in enumerate(owners) if owner == index]
            if own:
                named.append(_described(word, maps[own].sum(0)))
        others = [i for i, owner in enumerate(owners) if owner is None]
        if others:
            named.append(_described("", maps[others].sum(0)))
        return {"height": self.size[0], "width": self.size[1], "by": "word", "maps": named}

    def by_token(self) -> dict[str, Any]:
        """One map for each conditioning token, where the connector makes tokens of its own."""
        named = [_described(f"{number}", each) for number, each in enumerate(self._maps(), start=1)]
        return {"height": self.size[0], "width": self.size[1], "by": "token", "maps": named}

    def _maps(self) -> Float[Tensor, "token h w"]:
        assert self.total is not None  # is_known is asked before
        return (self.total / self.count).cpu()

    def _noting(self, row: int, tokens: int) -> Callable[..., None]:
        def note(layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            queries = (args[0] if args else named["hidden_states"])[row : row + 1]
            context = named.get("encoder_hidden_states")
            if context is None or queries.ndim != 3:
                return
            self._add(layer, queries, context[row : row + 1, :tokens])

        return note

    def _add(self, layer: Any, queries: Tensor, context: Tensor) -> None:
        """The layer's attention, computed beside it."""
        if layer.norm_cross:
            context = layer.norm_encoder_hidden_states(context)
        q, k = layer.to_q(queries), layer.to_k(context)
        q = q if layer.norm_q is None else layer.norm_q(q)
        k = k if layer.norm_k is None else layer.norm_k(k)
        q, k = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2).float() for part in (q, k))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)[0]
        height = round((len(weights) * self.ratio) ** 0.5)
        if height * (len(weights) // height) != len(weights):
            return  # the queries are no grid
        maps = weights.T.unflatten(1, (height, -1))[None]
        sized = functional.interpolate(maps, self.size, mode="bilinear", align_corners=False)[0]
        self.total = sized if self.total is None else self.total + sized
        self.count += 1


def _owner(span: tuple[int, int], words: Sequence[tuple[int, int]]) -> int | None:
    """The word that a token's characters belong to; None for a token of no characters."""
    overlaps = [min(span[1], end) - max(span[0], start) for start, end in words]
    best = max(range(len(words)), key=lambda i: overlaps[i], default=None)
    return best if best is not None and overlaps[best] > 0 else None


def _described(word: str, found: Float[Tensor, "h w"]) -> dict[str, Any]:
    """A map as whole numbers of 255, of its own largest value; and its share of all attention."""
    peak = float(found.max())
    levels = (found / peak * 255).round().int() if peak > 0 else found.int()
    return {
        "word": word,
        "share": round(float(found.mean()), 4),
        "peak": round(peak, 4),
        "values": levels.flatten().tolist(),
    }
