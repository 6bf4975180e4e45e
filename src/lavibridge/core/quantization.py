"""Replaces a network's linear layers by those of bitsandbytes, in 8 or 4 bits.

    8 bits   a scale for each row; activations are rounded, too, outliers excepted (LLM.int8)
    4 bits   NormalFloat4, a scale for each 64 weights (QLoRA)

Convolutions, norms and embeddings stay as they are, and so do the layers that their library keeps in float32.
LoRA beside a quantised layer is float32 and trains as before. Dettmers et al. 2022, arXiv 2208.07339; 2023,
arXiv 2305.14314.

Diffusers quantises on a GPU alone. Here the layers are replaced one after the other on the CPU, from weights
that are mapped from their file, so that memory never holds a second copy.
"""

import logging
from typing import Any

from torch import nn

from lavibridge.core.mapped_files import MappedFiles, trim_heap
from lavibridge.core.placement import Quantization

OUTLIER = 6.0
"""Activations beyond this are multiplied in 16 bits, with 8-bit weights (LLM.int8)."""


def quantize_linear_layers(network: nn.Module, bits: Quantization) -> None:
    """Replace the frozen linear layers of a network on the CPU; each computes in its weights' format."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports every cast to float16
    files = MappedFiles()
    for parent, name in quantizable_layers(network):
        layer = getattr(parent, name)
        setattr(parent, name, _quantized(layer, bits))
        files.release(layer.weight)
    setattr(network, f"is_loaded_in_{bits}", True)  # PEFT asks for it
    for weight in network.parameters():
        if weight.is_floating_point():  # one weight in the file would keep the file mapped
            before, weight.data = weight.data, weight.data.clone()
            files.release(before)
    trim_heap()


def quantizable_layers(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return each linear layer to quantise, as its parent and its name there."""
    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    return [
        (parent, name)
        for path, parent in network.named_modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and not kept & {*path.split("."), name}
    ]


def _quantized(layer: nn.Linear, bits: Quantization) -> nn.Module:
    """Return a quantised copy of a layer."""
    from bitsandbytes import nn as quantized

    dtype = layer.weight.dtype
    sizes = (layer.in_features, layer.out_features, layer.bias is not None)
    made: Any
    if bits == "4bit":
        made = quantized.Linear4bit(
            *sizes, compute_dtype=dtype, compress_statistics=False, quant_type="nf4", device="meta"
        )
        made.weight = quantized.Params4bit(
            layer.weight.data, requires_grad=False, compress_statistics=False, quant_type="nf4", module=made
        )
    else:
        made = quantized.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=OUTLIER, device="meta")
        made.weight = quantized.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    made.weight = made.weight.to("cpu")  # this quantises
    made.bias = layer.bias
    return made.requires_grad_(False).train(layer.training)
