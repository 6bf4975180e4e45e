"""Computes cosines of texts and images with a dual encoder (CLIP, SigLIP), also for long prompts.

    ids <= limit      one row of tokens
    longer            `cut`: the first `limit` tokens      `segments`: sentences, packed into rows that fit

Segments follow LongAlign's Denscore (Liu et al. 2024, arXiv 2410.11817): a long prompt's score is the mean
over its segments, so that its end counts too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.evaluation.networks import PretrainedNetwork, network_image_features, network_text_features

LongPrompts = Literal["cut", "segments"]


@dataclass(frozen=True, kw_only=True)
class PromptMatch:
    """How well an image matches a prompt."""

    cosine: float
    cut: float
    """Fraction of the prompt's own tokens that the model did not read, 0 to 1."""


class DualEncoder:
    """A model that embeds images and texts into one space."""

    def __init__(self, network: PretrainedNetwork, to_limit: bool = False, lower: bool = False) -> None:
        """`to_limit` pads every text to the limit, as in SigLIP's training.

        Raises ModelError if the model is not a dual encoder.
        """
        if "text_config" not in network.config or "vision_config" not in network.config:
            raise ModelError(
                f"'{network.source}' is not a dual encoder of texts and images: choose a CLIP or SigLIP model"
            )
        self.network, self.to_limit, self.lower = network, to_limit, lower

    @property
    def limit(self) -> int:
        """Maximum tokens per text, including special tokens."""
        described = self.network.config["text_config"].get("max_position_embeddings")
        return (
            int(described)
            if described
            else int(self.network.model.config.text_config.max_position_embeddings)
        )

    def matches(
        self, pictures: Sequence[Image.Image], prompts: Sequence[str], long: LongPrompts
    ) -> list[PromptMatch]:
        """Compute how well each image matches its own prompt."""
        embeddings = self.pictures(pictures)
        rows, owners, cut = [], [], []
        for place, prompt in enumerate(prompts):
            parts = self.segments(prompt) if long == "segments" else [prompt]
            rows += parts
            owners += [place] * len(parts)
            cut.append(0.0 if long == "segments" else self.share_cut(prompt))
        cosines = (embeddings[owners] * self.texts(rows)).sum(dim=1).cpu()
        means = torch.zeros(len(prompts)).index_add_(0, torch.tensor(owners), cosines)
        counts = torch.bincount(torch.tensor(owners), minlength=len(prompts))
        return [
            PromptMatch(cosine=float(value), cut=share)
            for value, share in zip(means / counts, cut, strict=True)
        ]

    def pictures(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "picture width"]:
        """Compute image embeddings of unit length."""
        with torch.no_grad():
            return functional.normalize(
                network_image_features(self.network, self.network.pixels(pictures)), dim=-1
            )

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "text width"]:
        """Compute text embeddings of unit length; truncates texts at the limit."""
        tokens = self.network.tokenizer(
            [self._cased(text) for text in texts],
            padding="max_length" if self.to_limit else True,
            truncation=True,
            max_length=self.limit,
            return_tensors="pt",
        ).to(self.network.device)
        # SigLIP was trained without a mask, so it attends to its padding.
        inputs: Mapping[str, Tensor] = {"input_ids": tokens["input_ids"]} if self.to_limit else {**tokens}
        with torch.no_grad():
            return functional.normalize(network_text_features(self.network, inputs), dim=-1)

    def share_cut(self, prompt: str) -> float:
        """The fraction of a prompt's own tokens beyond the limit."""
        own = self._length(prompt)
        budget = self.limit - self._frame()
        return max(0, own - budget) / own if own else 0.0

    def segments(self, prompt: str) -> list[str]:
        """The prompt's sentences, packed into as few rows as fit; splits a longer sentence between words."""
        budget = self.limit - self._frame()
        found: list[str] = []
        for piece in self._pieces(prompt, budget):
            joined = f"{found[-1]} {piece}" if found else piece
            if found and self._length(joined) <= budget:
                found[-1] = joined
            else:
                found.append(piece)
        return found or [prompt]

    def _pieces(self, prompt: str, budget: int) -> list[str]:
        pieces: list[str] = []
        for sentence in re.split(r"(?<=[.!?;])\s+|\n+", prompt.strip()):
            pieces += [sentence] if self._length(sentence) <= budget else sentence.split()
        return [piece for piece in pieces if piece]

    def _length(self, text: str) -> int:
        ids = self.network.tokenizer(self._cased(text), add_special_tokens=False, verbose=False)["input_ids"]
        return len(ids)

    def _frame(self) -> int:
        return len(self.network.tokenizer("")["input_ids"])

    def _cased(self, text: str) -> str:
        return text.lower() if self.lower else text


class DualEncoderMetric(ImageMetric):
    """Base of the metrics that use a dual encoder."""

    class Config(ImageMetric.Config):
        """The options of a dual-encoder metric."""

        model: str
        """A folder, a shipped model (`mini-clip`) or a hub id."""

    config: "DualEncoderMetric.Config"

    def __init__(self, config: "DualEncoderMetric.Config") -> None:
        """Find the model. Raises ModelError if there is none or it is not a dual encoder."""
        super().__init__(config)
        self.network = PretrainedNetwork(config.model)
        self.dual_encoder = DualEncoder(self.network)

    def card(self) -> dict[str, Any]:
        """The options and the model."""
        card = super().card()
        options = {key: value for key, value in card["options"].items() if key != "model"}
        return {**card, "options": options, "model": self.network.card(), "resize": "the model's own"}

    def free(self) -> None:
        """Free the weights."""
        self.network.free()
