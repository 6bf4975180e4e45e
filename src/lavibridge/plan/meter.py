"""Counts what tensors on the meta device would do and hold: arithmetic, traffic, live bytes.

    with Meter(known) as meter:  loss.backward()        meter.work, meter.peak

Every operation that reaches PyTorch's dispatcher is counted, those of the backward pass included. Sizes are
all that a meta tensor has; where a program asks for a value (is a mask full? which tokens are equal?) the
answer is that of the most expensive case: masks are full, and nothing is equal.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.fx.experimental._config as fx_config
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
"""Operations that the library does not count, and their equals that it does."""
BLOCK = 512
"""Bytes that an allocation is rounded up to, as CUDA's allocator does."""


class Operation(NamedTuple):
    """One call of a kernel."""

    part: str
    flops: int
    traffic: int
    """Bytes read and written."""
    is_half: bool
    """Whether it computes in 16 bits."""


class Meter(TorchDispatchMode):
    """Counts operations and live bytes; tensors that are there before do not count."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.part = "other"
        self.work: list[Operation] = []
        self.live = 0
        self.peak = 0
        self._storages: dict[int, int] = {}
        for tensor in known:
            self._storages.setdefault(tensor.untyped_storage()._cdata, 0)
        self._config: Any = fx_config.patch(  # type: ignore[attr-defined]
            meta_nonzero_assume_all_nonzero=True
        )

    def __enter__(self) -> "Meter":
        self._config.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._config.__exit__(*error)

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Operations within are named so."""
        before, self.part = self.part, part
        try:
            yield
        finally:
            self.part = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        known = {leaf.untyped_storage()._cdata for leaf in given if leaf.is_meta}
        out = _answered(func, args, kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.is_meta]
        if not made:
            return out
        is_view = not func._schema.is_mutable and all(leaf.untyped_storage()._cdata in known for leaf in made)
        for leaf in made:
            if leaf.untyped_storage()._cdata not in known:
                self._hold(leaf)
        if not is_view:
            self._count(func, args, kwargs, out, given, made)
        return out

    def _count(
        self, func: Any, args: Any, kwargs: Any, out: Any, given: list[Tensor], made: list[Tensor]
    ) -> None:
        packet = func._overloadpacket
        formula = flop_registry.get(LIKE.get(packet, packet))
        flops = 0 if formula is None else int(formula(*args, **kwargs, out_val=out))
        traffic = sum(leaf.numel() * leaf.element_size() for leaf in (*given, *made))
        self.work.append(Operation(self.part, flops, traffic, made[0].element_size() == 2))

    def _hold(self, tensor: Tensor) -> None:
        """Count a new storage until nobody holds it."""
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


def _answered(func: Any, args: Any, kwargs: Any) -> Any:
    """The operation's result; where that depends on values, the most expensive one."""
    if func is aten._local_scalar_dense.default and args[0].is_meta:
        return args[0].dtype is torch.bool or 1
    if func is aten.unique_dim.default and args[0].is_meta:
        values, dim = args[0], args[1]
        count = values.new_empty(values.shape[dim], dtype=torch.long)
        return torch.empty_like(values), torch.empty_like(count), torch.empty_like(count)
    return func(*args, **kwargs)
