"""Attention maps show which tokens each region of an image attends to in the denoiser's cross-attention.

    softmax(q k^T / sqrt(d))      in every cross-attention layer, at every step, with the positive prompt
    map of a token                the mean over heads, layers and steps, resized to one size

Hooks only read the layers' inputs, so the image stays the same bit for bit. Denoisers with joint attention
of text and image (SD3, FLUX) have no cross-attention layers, and therefore no maps.

Tang et al. 2022, "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", arXiv 2210.04885.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.attention_processor import context_of_call, normed_heads

_MOST_SIDE = 32
"""The longer side of a map is at most this long."""


class AttentionMaps:
    """Averages the cross-attention of one image over heads, layers and steps during generation."""

    def __init__(self, vision: VisionModel, shape: tuple[int, int, int]) -> None:
        self.vision = vision
        height, width = shape[1:]
        shrink = max(1.0, max(height, width) / _MOST_SIDE)
        self.ratio = height / width
        self.size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        self.total: Float[Tensor, "token h w"] | None = None
        self.count = 0

    @property
    def is_known(self) -> bool:
        """Whether any layer has contributed to the maps."""
        return self.count > 0

    @contextmanager
    def watching(self, row: int, mask: Bool[Tensor, " token"]) -> Iterator[None]:
        """Record one call of the denoiser. The image has this ``row``; ``mask`` is True for its tokens."""
        handles = [
            self.vision.backbone.get_submodule(name).register_forward_pre_hook(
                self._hook(row, mask), with_kwargs=True
            )
            for name in self.vision.spec.blocks
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def by_word(self, prompt: str, spans: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Return one map for each word of ``prompt``, and one, named "", for all remaining tokens.

        ``spans`` has the start and end of each token's characters in the prompt.
        """
        maps = self._maps()
        words = [(match.group(), match.span()) for match in re.finditer(r"\S+", prompt)]
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
        """Return one map for each conditioning token, for connectors that make tokens of their own."""
        named = [_described(f"{number}", each) for number, each in enumerate(self._maps(), start=1)]
        return {"height": self.size[0], "width": self.size[1], "by": "token", "maps": named}

    def _maps(self) -> Float[Tensor, "token h w"]:
        assert self.total is not None  # the caller checks is_known first
        return (self.total / self.count).cpu()

    def _hook(self, row: int, mask: Bool[Tensor, " token"]) -> Callable[..., None]:
        def record(layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            queries = (args[0] if args else named["hidden_states"])[row : row + 1]
            context = context_of_call(layer, named)
            if context is None or queries.ndim != 3:
                return
            self._add(layer, queries, context[row : row + 1, mask])

        return record

    def _add(self, layer: Any, queries: Tensor, context: Tensor) -> None:
        """Compute the layer's attention weights once more, and add them to the total."""
        if layer.norm_cross:
            context = layer.norm_encoder_hidden_states(context)
        q, k = layer.to_q(queries), layer.to_k(context)
        q, k = normed_heads(layer.norm_q, q, layer.heads), normed_heads(layer.norm_k, k, layer.heads)
        q, k = (part.unflatten(-1, (layer.heads, -1)).transpose(1, 2).float() for part in (q, k))
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)[0]
        height = round((len(weights) * self.ratio) ** 0.5)
        if height * (len(weights) // height) != len(weights):
            return  # the queries form no grid
        maps = weights.T.unflatten(1, (height, -1))[None]
        sized = functional.interpolate(maps, self.size, mode="bilinear", align_corners=False)[0]
        self.total = sized if self.total is None else self.total + sized
        self.count += 1


def _owner(span: tuple[int, int], words: Sequence[tuple[int, int]]) -> int | None:
    """The index of the word that shares most characters with a token; None if the token has no characters."""
    overlaps = [min(span[1], end) - max(span[0], start) for start, end in words]
    best = max(range(len(words)), key=lambda i: overlaps[i], default=None)
    return best if best is not None and overlaps[best] > 0 else None


def _described(word: str, weights: Float[Tensor, "h w"]) -> dict[str, Any]:
    """Describe a map: its values from 0 to 255, relative to its peak, and its share of all attention."""
    peak = float(weights.max())
    levels = (weights / peak * 255).round().int() if peak > 0 else weights.int()
    return {
        "word": word,
        "share": round(float(weights.mean()), 4),
        "peak": round(peak, 4),
        "values": levels.flatten().tolist(),
    }
