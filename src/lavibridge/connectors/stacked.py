"""Layers stacked on channels: a token's features in several layers become one long vector.

    x = [h_a ; h_b ; h_c]        y = W x + b

FLUX.2 reads its text encoder so: layers 10, 20 and 30 of Mistral Small's 40 (15,360 channels), and in the
klein models 9, 18 and 27 of Qwen3's 36 (7,680). W is the denoiser's own `context_embedder` there, without b.
Black Forest Labs 2025, FLUX.2; the order of channels is that of Diffusers' `Flux2Pipeline`.
"""

from typing import Annotated

from pydantic import Field
from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.stacked_layers import StackedReadOut
from lavibridge.core.contracts import TextSpec, VisionSpec

_PARTS = 4
"""By default the layers are those at which the depth divides into this many parts."""


class Stacked(Connector):
    """One linear layer on the stacked layers of every token."""

    class Config(Connector.Config):
        """Options of the connector."""

        read: None = None
        """None: the connector reads `layers`."""
        layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
        """The layers to stack: 0 is the embeddings, -1 the normed output. None takes those at one, two and
        three quarters of the depth, as FLUX.2 does."""

    config: Config

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        layers = _quarters(text) if config.layers is None else config.layers
        self.read = StackedReadOut(text, layers)
        self.proj = nn.Linear(self.read.width, vision.context)

    @property
    def input_layer(self) -> nn.Linear:
        """The only layer."""
        return self.proj

    @property
    def output_layer(self) -> nn.Linear:
        """The only layer."""
        return self.proj

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Map the stacked layers of every token."""
        return self.proj(x), mask


def _quarters(text: TextSpec) -> tuple[int, ...]:
    """Return the layers at the quarters of the depth, each once."""
    depth = text.layers - 1
    return tuple(sorted({depth * part // _PARTS for part in range(1, _PARTS)}))
