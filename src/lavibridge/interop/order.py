"""The layers of a network by their own names, and those that LaVi-Bridge trains, in the order of its files.

    for each ancestor of a named class, depth first:
        for each linear or convolution below it, in the order of registration:  up, down

The published lists hold no names. The order follows from how the networks are built and is the same in all
versions of the libraries that were looked at: in a U-Net attention stands before the residual blocks, and the
middle block comes last.

Zhao et al. 2024 (LaVi-Bridge), arXiv 2403.07860.
"""

from torch import nn

ANCESTORS = frozenset(
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
"""Classes under which every linear and convolution takes LoRA; no network has those of another family."""
Layer = nn.Linear | nn.Conv2d


def plain_name(name: str) -> str | None:
    """A layer's (or weight's) name as without LoRA; None for what belongs to LoRA itself."""
    parts = name.split(".")
    if "lora_A" in parts or "lora_B" in parts:
        return None
    return ".".join(part for part in parts if part != "base_layer")


def layers(network: nn.Module) -> dict[str, Layer]:
    """All linears and convolutions by name, LoRA or not."""
    found: dict[str, Layer] = {}
    for name, module in network.named_modules():
        plain = plain_name(name)
        if plain is not None and isinstance(module, Layer):
            found[plain] = module
    return found


def published_order(network: nn.Module) -> dict[str, Layer]:
    """The layers that LaVi-Bridge trains, in the order of its files; empty where it knows no such network."""
    found: dict[str, Layer] = {}
    for above, ancestor in network.named_modules():
        if type(ancestor).__name__ in ANCESTORS:
            for name, layer in layers(ancestor).items():
                found.setdefault(f"{above}.{name}" if above else name, layer)
    return found


def pair_shapes(layer: Layer, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of up and down for a layer: a convolution's down has its kernel, up is 1 x 1."""
    if isinstance(layer, nn.Linear):
        return (layer.out_features, rank), (rank, layer.in_features)
    kernel = tuple(layer.kernel_size)
    return (layer.out_channels, rank, 1, 1), (rank, layer.in_channels // layer.groups, *kernel)
