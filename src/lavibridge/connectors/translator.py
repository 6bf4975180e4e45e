"""A translator: the connector of a trained bridge goes on with another language model.

    y = B(W LN(x) + b)     x are the features of the new language model, B transformer blocks over the prompt
    tokens = C(y)          C is the trained connector, which reads y as the features that it was trained with

Alignment trains W, b, B and the norm on captions alone and leaves C as it is, so that the language model of a
bridge changes and everything behind it stays: `lavi align RECIPE --from BRIDGE --language MODEL --translate`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.blocks import TransformerBlock, head_count
from lavibridge.connectors.parts.following import following_tokens, read_following
from lavibridge.core.contracts import ReadingSpec, TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError


class Translator(Connector):
    """Translates one feature per token and passes it to the connector of another bridge."""

    class Config(Connector.Config):
        """Options of the translator."""

        then: Mapping[str, Any] = Field(default_factory=lambda: {"kind": "linear"})
        """The connector that continues: its kind and options. It reads the translation, not layers."""
        width: int | None = Field(default=None, ge=1)
        """Width of the features that it reads, those of the language model that it was trained with. None:
        the width of this language model."""
        blocks: int = Field(default=1, ge=0)
        """Number of transformer blocks; without any, every token is translated separately."""

    config: Config
    needs_teacher = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        width = config.width or text.width
        # Which layers there were is part of what is translated.
        following, options = read_following(config.then, read=None, whiten=False)
        self.then: Connector = following(options, TextSpec(width=width, layers=1, pooled=text.pooled), vision)
        if self.then.per_block or self.then.reading != ReadingSpec(layers=self.then.read.layers):
            raise ModelError(
                f"connector.then: {type(self.then).__name__} reads the language model itself, so that no "
                "translation can stand before it: align a connector of another kind without --translate"
            )
        self.time_aware = self.then.time_aware
        self.pool = None  # the following connector pools
        heads = head_count(width)
        self.norm = nn.LayerNorm(text.width)
        self.proj = nn.Linear(text.width, width)
        self.translating = nn.ModuleList(TransformerBlock(width, heads) for _ in range(config.blocks))

    @classmethod
    def fixed_tokens(cls, config: Connector.Config) -> tuple[str, int] | None:
        """Return those of the following connector."""
        assert isinstance(config, cls.Config)
        return following_tokens(config.then)

    def continue_from(self, connector: Connector) -> None:
        """Take over the weights of a trained connector. Raises ModelError if it is not the one of `then`."""
        weights = {
            name: each for name, each in connector.state_dict().items() if not name.startswith("read.")
        }
        try:
            if type(connector) is not type(self.then):
                raise RuntimeError(f"it is a {type(connector).__name__}")
            self.then.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"connector.then is a {type(self.then).__name__} for features {self.proj.out_features} wide, "
                f"and the teacher's connector does not fit there ({reason}): let --translate write it"
            ) from error

    def aligned_parameters(self) -> dict[str, nn.Parameter]:
        """The translation's own weights."""
        return {name: each for name, each in self.named_parameters() if not name.startswith("then.")}

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the following connector's output for the translated tokens."""
        translated = self.proj(self.norm(x))
        for block in self.translating:
            translated = block(translated, mask)
        return self.then.connect(translated, mask, t)

    def pooled(self, features: TextFeatures, tokens: Tensor, mask: Mask) -> Tensor | None:
        """Return the following connector's pooled vector."""
        return self.then.pooled(features, tokens, mask)
