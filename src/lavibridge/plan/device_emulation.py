"""Emulates on the meta device what a real device does: mixed precision and fused attention.

    autocast   matrix products and convolutions in 16 bits; on CUDA, norms and softmax in 32
    attention  one kernel that keeps q, k, v, the output and one number per query, never the scores

The lists follow `torch.autocast`, without operations that no model here uses. As in autocast, a trained
weight is cast once per pass and a frozen one at every use.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

PRODUCTS = {
    functional.linear,
    functional.conv1d,
    functional.conv2d,
    functional.conv_transpose2d,
    functional.scaled_dot_product_attention,
    functional.multi_head_attention_forward,
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.addmm,
    torch.baddbmm,
    torch.einsum,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.mm,
    Tensor.bmm,
}
NORMS = {
    functional.layer_norm,
    functional.group_norm,
    functional.softmax,
    torch.softmax,
    Tensor.softmax,
    torch.rsqrt,
    Tensor.rsqrt,
    torch.pow,
    Tensor.pow,
    torch.exp,
    Tensor.exp,
}


class DeviceEmulation(TorchFunctionMode):
    """Emulates calls on a device of ``type`` (`cuda` or `cpu`), under autocast if ``precision`` is given."""

    def __init__(self, type: str, precision: torch.dtype | None) -> None:
        super().__init__()
        self.type = type
        self.precision = precision
        self.casts: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.precision is not None:
            if func in PRODUCTS:
                args, kwargs = self._cast((args, kwargs), self.precision)
            elif func in NORMS and self.type == "cuda":
                args, kwargs = self._cast((args, kwargs), torch.float32)
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is functional.multi_head_attention_forward:
            return _within(func, args, kwargs)
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, tuple | list):
            return type(value)(self._cast(part, dtype) for part in value)
        if isinstance(value, dict):
            return {name: self._cast(part, dtype) for name, part in value.items()}
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype is dtype:
            return value
        if value.is_leaf and value.requires_grad:
            return self.casts.setdefault(id(value), value.to(dtype))
        return value.to(dtype)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(groups, -3) for each in (key, value))
    mask = None if attn_mask is None or attn_mask.dtype is torch.bool else attn_mask.to(query.dtype)
    found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale
    )
    return found[0]


def _within(func: Any, args: Any, kwargs: Any) -> Any:
    """Call a Python function that calls attention internally, where the mode does not see it."""
    own = functional.scaled_dot_product_attention
    try:
        functional.scaled_dot_product_attention = _attention
        return func(*args, **kwargs)
    finally:
        functional.scaled_dot_product_attention = own
