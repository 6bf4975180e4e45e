"""Copies a network's weights with its LoRA merged, under the names that they have without LoRA."""

import torch
from torch import Tensor, nn

from lavibridge.core.low_rank import add_low_rank, plain_layer_name
from lavibridge.lora import lora_pairs


@torch.no_grad()
def merged_weights(network: nn.Module, is_merged: bool) -> dict[str, Tensor]:
    """Return copies of the weights on the CPU; ``is_merged`` is True if they already contain the LoRA."""
    pairs = {} if is_merged else lora_pairs(network)
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        plain = plain_layer_name(name)
        if plain is None:
            continue
        weight = value.detach().clone()
        layer = plain.removesuffix(".weight")
        if layer in pairs and plain.endswith(".weight"):
            weight = add_low_rank(weight, *pairs[layer])
        state[plain] = weight.cpu().contiguous()
    return state
