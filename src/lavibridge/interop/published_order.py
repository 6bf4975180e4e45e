"""Lists the layers that LaVi-Bridge trains, in the order of its files.

    for each ancestor of a named class, depth first:
        for each linear or convolution below it, in the order of registration:  up, down

The published lists hold no names. The order follows from the way the networks are built, and is the same in
all versions of the libraries that we compared: in a U-Net, attention comes before the residual blocks, and
the middle block comes last.

Zhao et al. 2024 (LaVi-Bridge), arXiv 2403.07860.
"""

from torch import nn

from lavibridge.core.low_rank import Layer, named_layers

_ANCESTORS = frozenset(
    {
        "ResnetBlock2D",
        "CrossAttention",
        "Attention",
        "GEGLU",
        "T5Attention",
        "LlamaAttention",
        "CLIPAttention",
    }
)
"""Classes below which every linear layer and convolution takes LoRA; each belongs to one model family."""


def published_order(network: nn.Module) -> dict[str, Layer]:
    """The layers that LaVi-Bridge trains, in the order of its files; empty for an unsupported network."""
    found: dict[str, Layer] = {}
    for above, ancestor in network.named_modules():
        if type(ancestor).__name__ in _ANCESTORS:
            for name, layer in named_layers(ancestor).items():
                found.setdefault(f"{above}.{name}" if above else name, layer)
    return found
