"""Loads a denoiser from a GGUF file, through Diffusers.

    blocks of 2 to 8 bits, as in the file --each layer, while it runs--> weights in `dtype`

Linear layers keep their blocks in memory, and so need the memory of the file. LoRA beside them trains as
beside any quantised layer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig
from torch import nn


def load_gguf_denoiser(load: Callable[..., Any], file: Path, dtype: torch.dtype) -> Any:
    """Return the denoiser that ``load``, Diffusers' conversion, makes of a file; it computes in ``dtype``."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter, dequantize_gguf_tensor

    network = load(
        str(file), torch_dtype=dtype, quantization_config=GGUFQuantizationConfig(compute_dtype=dtype)
    )
    for module in network.modules():
        if isinstance(module, GGUFLinear):
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, GGUFParameter):  # only linear layers compute with blocks
                whole = dequantize_gguf_tensor(weight).to(dtype)
                setattr(module, name, nn.Parameter(whole, requires_grad=False))
    return network
