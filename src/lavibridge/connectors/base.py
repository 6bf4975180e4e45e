"""The contract of a connector: text features in, conditioning out.

    features --read--> one feature per token --connect--> tokens --> conditioning

A kind implements `connect`; this class does the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from lavibridge.connectors.parts.pool import AttentionPool
from lavibridge.connectors.parts.read_out import ReadOutChoice, make_read_out
from lavibridge.connectors.parts.whitening import compute_whitening, fold_whitening
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import (
    Attention,
    BlockTokens,
    Conditioning,
    ReadingSpec,
    TextFeatures,
    TextSpec,
    VisionSpec,
)
from lavibridge.core.errors import ModelError

Tokens = Float[Tensor, "batch token width"]
Mask = Bool[Tensor, "batch token"]
Times = Num[Tensor, " batch"]
Connected = tuple[Float[Tensor, "batch _ context"], Bool[Tensor, "batch _"]]
"""Conditioning tokens and their mask."""
_NO_BLOCKS: Mapping[str, Attention | BlockTokens] = MappingProxyType({})


class Connector(nn.Module, ABC):
    """The trained module between the two models; their specs determine its sizes."""

    class Config(BaseConfig):
        """The options of a connector."""

        read: ReadOutChoice | None = None
        """Which layers of the language model to read: last, mean, norm_mean, learned, attention or {layer:
        K}. None chooses by model: norm_mean for decoder-only models and last for others."""
        whiten: bool = False
        """Initialise the first weights so that the captions' features are uncorrelated and of equal variance
        to them."""

    time_aware: bool = False
    """Whether the conditioning depends on the timestep, so that every step recomputes it."""
    has_queries: ClassVar[bool] = False
    """Whether it learns vectors that pass through the language model (`ReadingSpec.queries`)."""
    per_block: bool = False
    """Whether it conditions single blocks of the denoiser."""
    needs_teacher: ClassVar[bool] = False
    """Whether it continues a trained connector, so that its alignment needs another bridge as the teacher."""
    tokens_option: ClassVar[str | None] = None
    """The option that sets the number of conditioning tokens, or None if the text sets it."""

    config: "Connector.Config"

    def __init__(self, config: "Connector.Config", text: TextSpec, vision: VisionSpec) -> None:
        """Build from the options and the two specs. Raises ModelError if they cannot be connected."""
        super().__init__()
        if text.passthrough is not None and text.passthrough != vision.context:
            raise ModelError(
                f"the passthrough tokens are {text.passthrough} wide, but the vision model takes tokens "
                f"{vision.context} wide: pair the language model with an encoder of that width"
            )
        self.config = config
        self.text, self.vision = text, vision
        self.read = make_read_out(config.read, text)
        self.pool: AttentionPool | None = None
        if vision.pooled is not None and vision.pooled != text.pooled:
            self.pool = AttentionPool(vision.context, vision.pooled)

    @classmethod
    def fixed_tokens(cls, config: "Connector.Config") -> tuple[str, int] | None:
        """Return the option that sets the number of conditioning tokens and its value, or None if the text
        sets it."""
        if cls.tokens_option is None:
            return None
        return cls.tokens_option, int(getattr(config, cls.tokens_option))

    @property
    def reading(self) -> ReadingSpec:
        """What it requests from the language model."""
        return ReadingSpec(layers=self.read.layers)

    @property
    def input_layer(self) -> nn.Linear | None:
        """The linear layer that reads each token's feature, or None if there is no such layer."""
        return None

    @property
    def output_layer(self) -> nn.Linear | None:
        """The last linear layer of a connector that maps every token separately, or None for others."""
        return None

    def continue_from(self, connector: "Connector") -> None:
        """Take over the weights that a kind continues from the teacher, before an alignment."""

    def aligned_parameters(self) -> dict[str, nn.Parameter]:
        """Return the weights that an alignment trains, by name."""
        return dict(self.named_parameters())

    @property
    def needs_calibration(self) -> bool:
        """Whether to call `calibrate` with features of the data's captions before the first step.

        Raises ModelError if the options ask for it and the connector cannot do it.
        """
        if self.config.whiten and self.input_layer is None:
            raise ModelError(
                f"connector.whiten: {type(self).__name__} has no linear layer that reads the features, so "
                "there are no first weights to initialise: omit the option, or use the connector 'lavi'"
            )
        return self.config.whiten

    def calibrate(self, tokens: Float[Tensor, "token layer width"]) -> None:
        """Fit the first weights to the features of real tokens."""
        assert self.input_layer is not None  # needs_calibration ensures it
        fold_whitening(self.input_layer, compute_whitening(self.features_of(tokens)))

    def features_of(self, tokens: Float[Tensor, "token layer width"]) -> Float[Tensor, "token _"]:
        """Return one feature per token, as the read-out computes it."""
        return self.read(tokens.transpose(0, 1)[None].float())[0]

    @abstractmethod
    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return conditioning tokens and their mask, from one feature per token and the model's own time."""

    def forward(self, features: TextFeatures, t: Times | None = None) -> Conditioning:
        """Return the conditioning of features; ``t`` is the vision model's own time, for time-aware
        connectors.

        Raises ValueError if a time-aware connector gets no ``t``.
        """
        if self.time_aware and t is None:
            raise ValueError(f"{type(self).__name__} depends on the timestep: pass t")
        tokens, mask = self.connect(self.read(features.hidden), features.mask, t)
        return self.conditioning(features, tokens, mask)

    def conditioning(
        self,
        features: TextFeatures,
        tokens: Float[Tensor, "batch _ context"],
        mask: Mask,
        blocks: Mapping[str, Attention | BlockTokens] = _NO_BLOCKS,
    ) -> Conditioning:
        """Assemble connected tokens and the pooled vector; the passthrough tokens come first."""
        pooled = self.pooled(features, tokens, mask)
        if features.passthrough_tokens is not None and features.passthrough_mask is not None:
            tokens = torch.cat([features.passthrough_tokens.to(tokens), tokens], dim=1)
            mask = torch.cat([features.passthrough_mask, mask], dim=1)
        return Conditioning(tokens=tokens, mask=mask, pooled=pooled, blocks=blocks)

    def pooled(
        self, features: TextFeatures, tokens: Tensor, mask: Mask
    ) -> Float[Tensor, "batch pooled"] | None:
        """Return the pooled vector: the language model's own if it fits, otherwise pooled from the
        conditioning tokens."""
        if self.vision.pooled is None:
            return None
        return features.pooled if self.pool is None else self.pool(tokens, mask)
