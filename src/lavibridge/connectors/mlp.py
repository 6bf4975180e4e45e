"""Two linear layers on every token: the simplest connector in ELLA's ablations.

    y = W2 gelu(W1 x + b1) + b2

Between two frozen models it scored lower than no bridge at all (Hu et al. 2024, arXiv 2403.05135, table 6:
62.55 against 63.18 on DPG-Bench). The paper does not state the activation; GELU is our choice. 2,164,224
weights at its size.
"""

from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.core.contracts import TextSpec, VisionSpec


class Mlp(Connector):
    """Its inner width is that of the vision model's tokens."""

    class Config(Connector.Config):
        """No options of its own."""

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        self.net = nn.Sequential(
            nn.Linear(text.width, vision.context), nn.GELU(), nn.Linear(vision.context, vision.context)
        )

    @property
    def input_layer(self) -> nn.Linear:
        """The first of the two."""
        layer = self.net[0]
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def output_layer(self) -> nn.Linear:
        """The second of the two."""
        layer = self.net[2]
        assert isinstance(layer, nn.Linear)
        return layer

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Map every token separately."""
        return self.net(x), mask
