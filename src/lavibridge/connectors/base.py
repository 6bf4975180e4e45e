"""The contract of a connector: text features in, conditioning out.

    features --read--> one feature per token --connect--> tokens --> conditioning

A kind says what `connect` does; the rest is the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from lavibridge.connectors.parts.pool import AttentionPool
from lavibridge.connectors.parts.read_out import ReadOutChoice, read_out
from lavibridge.connectors.parts.whitening import fold_whitening, whitening
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import Attention, Conditioning, Reading, TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError

Tokens = Float[Tensor, "batch token width"]
Mask = Bool[Tensor, "batch token"]
Times = Num[Tensor, " batch"]
Connected = tuple[Float[Tensor, "batch _ context"], Bool[Tensor, "batch _"]]
"""Conditioning tokens and their mask."""
NO_BLOCKS: Mapping[str, Attention] = MappingProxyType({})


class Connector(nn.Module, ABC):
    """What is trained between the two models; its sizes come from their specs, never by hand."""

    class Config(BaseConfig):
        """The options of a connector."""

        read: ReadOutChoice | None = None
        """Which layers of the language model: last, mean, norm_mean, learned, attention or {layer: K}. None:
        what suits the model, norm_mean for decoder-only ones and last for others."""
        whiten: bool = False
        """Begin with first weights to which the captions' features look uncorrelated and equally large."""

    time_aware: bool = False
    """Whether the conditioning depends on the timestep, so that it is made anew at each step."""
    has_queries: ClassVar[bool] = False
    """Whether it learns vectors that go through the language model (`Reading.queries`)."""
    per_block: bool = False
    """Whether it speaks to single blocks of the denoiser."""

    config: "Connector.Config"

    def __init__(self, config: "Connector.Config", text: TextSpec, vision: VisionSpec) -> None:
        """Build from the options and the two specs; raises ModelError where they cannot be connected."""
        super().__init__()
        if text.passthrough is not None and text.passthrough != vision.context:
            raise ModelError(
                f"the passthrough tokens are {text.passthrough} wide, and the vision model takes tokens "
                f"{vision.context} wide: pair the language model with an encoder of that width"
            )
        self.config = config
        self.text, self.vision = text, vision
        self.read = read_out(config.read, text)
        self.pool: AttentionPool | None = None
        if vision.pooled is not None and vision.pooled != text.pooled:
            self.pool = AttentionPool(vision.context, vision.pooled)

    @property
    def reading(self) -> Reading:
        """What it asks of the language model."""
        return Reading(layers=self.read.layers)

    @property
    def input_layer(self) -> nn.Linear | None:
        """The layer that each token's feature goes into; None where it goes elsewhere first."""
        return None

    @property
    def needs_calibration(self) -> bool:
        """Whether `calibrate` is to be called, on features of the data's captions, before the first step.

        ModelError where that is asked of a connector that cannot.
        """
        if self.config.whiten and self.input_layer is None:
            raise ModelError(
                f"connector.whiten: {type(self).__name__} has no linear layer that reads the features, so "
                "there are no first weights to begin elsewhere: leave it out, or take the connector 'lavi'"
            )
        return self.config.whiten

    def calibrate(self, tokens: Float[Tensor, "token layer width"]) -> None:
        """Fit the first weights to real tokens' features."""
        assert self.input_layer is not None  # wants_calibration has seen to it
        fold_whitening(self.input_layer, whitening(self.features_of(tokens)))

    def features_of(self, tokens: Float[Tensor, "token layer width"]) -> Float[Tensor, "token width"]:
        """One feature for each token, as the read-out makes it."""
        return self.read(tokens.transpose(0, 1)[None].float())[0]

    @abstractmethod
    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Conditioning tokens and their mask, from one feature per token and the model's own time."""

    def forward(self, features: TextFeatures, t: Times | None = None) -> Conditioning:
        """The conditioning of features; ``t`` is the vision model's own time, for time-aware connectors."""
        if self.time_aware and t is None:
            raise ValueError(f"{type(self).__name__} is aware of time: t is needed")
        tokens, mask = self.connect(self.read(features.hidden), features.mask, t)
        return self.conditioning(features, tokens, mask)

    def conditioning(
        self,
        features: TextFeatures,
        tokens: Float[Tensor, "batch _ context"],
        mask: Mask,
        blocks: Mapping[str, Attention] = NO_BLOCKS,
    ) -> Conditioning:
        """Connected tokens with the pooled vector, and behind the tokens that go past the connector."""
        pooled = self.pooled(features, tokens, mask)
        if features.passthrough_tokens is not None and features.passthrough_mask is not None:
            tokens = torch.cat([features.passthrough_tokens.to(tokens), tokens], dim=1)
            mask = torch.cat([features.passthrough_mask, mask], dim=1)
        return Conditioning(tokens=tokens, mask=mask, pooled=pooled, blocks=blocks)

    def pooled(
        self, features: TextFeatures, tokens: Tensor, mask: Mask
    ) -> Float[Tensor, "batch pooled"] | None:
        """The pooled vector: the language model's own where it fits, else out of the conditioning tokens."""
        if self.vision.pooled is None:
            return None
        return features.pooled if self.pool is None else self.pool(tokens, mask)
