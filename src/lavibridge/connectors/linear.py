"""A single linear layer on every token: the simplest connector, and the template for a new one.

    y = W x + b

With LoRA on both sides it is LaVi-Bridge's ablation "without adapter", in which this layer only matches the
widths.
"""

from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.core.contracts import TextSpec, VisionSpec


class Linear(Connector):
    """Connects any two widths."""

    class Config(Connector.Config):
        """No options of its own."""

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        self.proj = nn.Linear(text.width, vision.context)

    @property
    def input_layer(self) -> nn.Linear:
        """The only layer."""
        return self.proj

    @property
    def output_layer(self) -> nn.Linear:
        """The only layer."""
        return self.proj

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Map every token separately."""
        return self.proj(x), mask
