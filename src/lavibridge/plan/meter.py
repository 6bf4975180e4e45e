"""Meters operations on the meta device: arithmetic, memory traffic and live bytes.

    with Meter(known) as meter:  loss.backward()        meter.work, meter.peak

Counts every operation that reaches PyTorch's dispatcher, the backward pass included.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
LIKE = {
    aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        aten._scaled_dot_product_flash_attention_backward
    ),
}
"""Operations without a FLOP formula in PyTorch, and equivalent ones that have one."""
FORMULAS = {aten._grouped_mm: lambda a, b, *_, **__: 2 * a.numel() * b.shape[-1]}
"""FLOPs of operations that PyTorch has no formula for, such as the product with the matrices of experts."""
BLOCK = 512
"""Allocation granularity in bytes, as in CUDA's allocator."""


class Operation(NamedTuple):
    """One call of a kernel."""

    part: str
    flops: int
    traffic: int
    """Bytes read and written."""
    is_half: bool
    """Whether it computes in 16 bits."""


class Meter(TorchDispatchMode):
    """Counts operations and live bytes, except for the bytes of `known` tensors."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.part = "other"
        self.work: list[Operation] = []
        self.live = 0
        self.peak = 0
        self._storages: dict[int, int] = {}
        for tensor in known:
            self._storages.setdefault(tensor.untyped_storage()._cdata, 0)

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Attribute the operations within the context to `part`."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = {leaf.untyped_storage()._cdata for leaf in inputs if leaf.is_meta}
        out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.is_meta]
        if not outputs:
            return out
        is_view = not func._schema.is_mutable and all(
            leaf.untyped_storage()._cdata in known for leaf in outputs
        )
        for leaf in outputs:
            if leaf.untyped_storage()._cdata not in known:
                self._hold(leaf)
        if not is_view:
            self._count(func, args, kwargs, out, inputs, outputs)
        return out

    def _count(
        self, func: Any, args: Any, kwargs: Any, out: Any, inputs: list[Tensor], outputs: list[Tensor]
    ) -> None:
        packet = func._overloadpacket
        formula = FORMULAS.get(packet) or flop_registry.get(LIKE.get(packet, packet))
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=out))
        traffic = sum(leaf.numel() * leaf.element_size() for leaf in (*inputs, *outputs))
        self.work.append(Operation(self.part, flops, traffic, outputs[0].element_size() == 2))

    def _hold(self, tensor: Tensor) -> None:
        """Count a new storage for as long as it is alive."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._storages[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.live -= self._storages.pop(key, 0)
