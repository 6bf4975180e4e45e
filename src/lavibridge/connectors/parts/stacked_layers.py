"""Layers stacked on channels: [h_a ; h_b ; h_c], one long vector for each token.

Each layer keeps its own channels, so that the layer of weights that follows chooses from each what it needs;
a mean over layers weighs all channels of a layer alike.
"""

from jaxtyping import Float
from torch import Tensor

from lavibridge.connectors.parts.read_out import ReadOut
from lavibridge.core.contracts import TextSpec
from lavibridge.core.errors import ModelError


class StackedReadOut(ReadOut):
    """Concatenates the features of layers, and has no weights."""

    def __init__(self, text: TextSpec, layers: tuple[int, ...]) -> None:
        """Raises ModelError for a layer that the language model does not have."""
        super().__init__()
        wrong = [layer for layer in layers if not -text.layers <= layer < text.layers]
        if wrong:
            raise ModelError(
                f"connector.layers: layer {wrong[0]} does not exist; the language model has layers 0 to "
                f"{text.layers - 1} (or -1 to -{text.layers}, counted from the end)"
            )
        self.layers = layers
        self.width = len(layers) * text.width

    def forward(
        self, hidden: Float[Tensor, "batch layer token width"]
    ) -> Float[Tensor, "batch token stacked"]:
        """Put the layers side by side, in the order of ``layers``."""
        return hidden.transpose(1, 2).flatten(2)
