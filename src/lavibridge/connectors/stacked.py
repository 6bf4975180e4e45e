"""Layers stacked on channels: a token's features in several layers become one long vector.

    x = [h_a ; h_b ; h_c]        y = W x + b

Each layer keeps its own columns of W, so that the connector chooses from each what it needs; a read-out that
averages layers weighs all channels of a layer alike. FLUX.2 reads its text encoder so: layers 10, 20 and 30
of Mistral Small's 40 (15,360 channels), and in the klein models 9, 18 and 27 of Qwen3's 36 (7,680). W is the
denoiser's own `context_embedder` there, without b. Black Forest Labs 2025, FLUX.2; the order of channels is
that of Diffusers' `Flux2Pipeline`.
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.read_out import ReadOut
from lavibridge.core.contracts import TextSpec, VisionSpec
from lavibridge.core.errors import ModelError

_PARTS = 4
"""By default the layers are those at which the depth divides into this many parts."""


class StackedReadOut(ReadOut):
    """Concatenates the features of layers; has no weights."""

    def __init__(self, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers

    def forward(
        self, hidden: Float[Tensor, "batch layer token width"]
    ) -> Float[Tensor, "batch token stacked"]:
        """Put the layers side by side, in the order of ``layers``."""
        return hidden.transpose(1, 2).flatten(2)


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
        wrong = [layer for layer in layers if not -text.layers <= layer < text.layers]
        if wrong:
            raise ModelError(
                f"connector.layers: layer {wrong[0]} does not exist; the language model has layers 0 to "
                f"{text.layers - 1} (or -1 to -{text.layers}, counted from the end)"
            )
        self.read = StackedReadOut(layers)
        self.proj = nn.Linear(len(layers) * text.width, vision.context)

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
