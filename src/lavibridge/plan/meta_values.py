"""Computes the values of small meta tensors if they follow from known values.

    mask = torch.tensor([[True, True, False]]).to("meta")     known: copied from the CPU
    mask.sum(dim=1).tolist()                                  [2], computed on the CPU

A meta tensor has a shape but no values, and yet models branch on values: is the mask full, how long is each
prompt? Masks, lengths and positions follow from the prompts' tokens, so this mode computes them on the CPU
too. Values that follow from weights or latents stay unknown. If a model branches on those, it gets the most
expensive answer: a flag is true, and no two values are equal.
"""

import weakref
from typing import Any

import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lavibridge.core.errors import ModelError

aten = torch.ops.aten
LARGEST = 2**20
"""Tensors with more elements get no values."""
SHAPED = {
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
}
"""Operations that read a tensor's shape and dtype but not its values."""
EMPTY = {aten.empty.memory_format, aten.empty_strided.default}
"""Operations whose result has no values yet."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
"""Operations whose second argument may be a mask that determines a shape."""
BY_VALUE = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operations whose result, or its shape, depends on values."""


class MetaValues(TorchDispatchMode):
    """Computes known values of meta tensors in addition to their shapes.

    Raises ModelError if a model needs values that are not known.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[int, torch.UntypedStorage] = {}
        """Meta storage with known values -> the storage on the CPU that holds them."""
        self._config: Any = fx_config.patch(  # type: ignore[attr-defined]
            meta_nonzero_assume_all_nonzero=True
        )

    def __enter__(self) -> "MetaValues":
        self._config.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._config.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not (any(leaf.is_meta for leaf in inputs) or (device is not None and device.type == "meta")):
            return func(*args, **kwargs)
        if func is aten.unique_dim.default:
            return _all_different(args[0], args[1])
        if func is aten._grouped_mm.default:
            return _grouped_mm(*args)
        if func in INDEXING:
            args = (args[0], self._places(args[1]), *args[2:])
        known = self._known(func, args, kwargs)
        to_cpu = device is not None and device.type == "cpu"
        if to_cpu or BY_VALUE & set(func.tags):
            if known is None:
                return _costliest(func, args, kwargs)
            found = func(*known[0], **known[1])
            return found if to_cpu else tree_map(self._on_meta, found)
        out = func(*args, **kwargs)
        if func._schema.is_mutable:
            self._write(func, args, kwargs, known)
        elif known is not None:
            self._add(func, known, out, {leaf.untyped_storage()._cdata for leaf in inputs})
        return out

    def _known(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """The arguments with their values on the CPU; None if one is unknown or the operation is random."""
        if func in EMPTY or torch.Tag.nondeterministic_seeded in func.tags:
            return None
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.is_meta]
        if not all(self._is_known(leaf) or (func in SHAPED and leaf.numel() <= LARGEST) for leaf in leaves):
            return None
        known_args, known_kwargs = tree_map(self._value, (args, kwargs))
        if kwargs.get("device") is not None:
            known_kwargs = {**known_kwargs, "device": torch.device("cpu")}
        return known_args, known_kwargs

    def _is_known(self, leaf: Tensor) -> bool:
        is_plain = not (leaf.is_conj() or leaf.is_neg())
        return is_plain and leaf.untyped_storage()._cdata in self._values

    def _value(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_meta:
            return leaf
        if not self._is_known(leaf):  # only its shape and dtype will be read
            return torch.zeros(leaf.size(), dtype=leaf.dtype)
        return _over(self._values[leaf.untyped_storage()._cdata], leaf)

    def _add(self, func: Any, known: tuple[Any, Any], out: Any, inputs: set[int]) -> None:
        """Compute the values of an operation's new storages; a view shares the values of its base."""
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        is_new = [leaf.untyped_storage()._cdata not in inputs for leaf in made]
        if not any(is_new) or any(leaf.numel() > LARGEST for leaf in made):
            return
        values = [leaf for leaf in tree_leaves(func(*known[0], **known[1])) if isinstance(leaf, Tensor)]
        for leaf, value, keep in zip(made, values, is_new, strict=True):
            if keep:
                self._keep(leaf, value)

    def _write(self, func: Any, args: Any, kwargs: Any, known: tuple[Any, Any] | None) -> None:
        """Repeat on the values what an operation writes into its arguments, or drop the values."""
        if known is not None:
            func(*known[0], **known[1])
            return
        named = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | kwargs
        for each in func._schema.arguments:
            if each.alias_info is not None and each.alias_info.is_write:
                for leaf in tree_leaves(named.get(each.name)):
                    self._values.pop(leaf.untyped_storage()._cdata, None)

    def _places(self, indices: Any) -> list[Any]:
        """Replace known masks among indices by the positions of their true elements."""
        found: list[Any] = []
        for each in indices:
            if each is not None and each.is_meta and each.dtype is torch.bool and self._is_known(each):
                found += [self._on_meta(column) for column in self._value(each).nonzero(as_tuple=True)]
            else:
                found.append(each)
        return found

    def _on_meta(self, value: Any) -> Any:
        """Convert a tensor to a meta tensor with known values; return numbers unchanged."""
        if not isinstance(value, Tensor):
            return value
        leaf = torch.empty_like(value, device="meta")
        self._keep(leaf, value)
        return leaf

    def _keep(self, leaf: Tensor, value: Tensor) -> None:
        """Store the values of a meta tensor's storage, for as long as the storage exists."""
        storage = leaf.untyped_storage()
        held = torch.UntypedStorage(storage.nbytes())
        _over(held, leaf).copy_(value)
        self._values[storage._cdata] = held
        weakref.finalize(storage, self._values.pop, storage._cdata, None)


def _over(values: torch.UntypedStorage, leaf: Tensor) -> Tensor:
    """View ``values`` with the offset, size and stride that ``leaf`` has in its own storage."""
    empty = torch.empty(0, dtype=leaf.dtype)
    return empty.set_(values, leaf.storage_offset(), leaf.size(), leaf.stride())


def _costliest(func: Any, args: Any, kwargs: Any) -> Any:
    """The most expensive result of an operation on unknown values. Raises ModelError if there is none."""
    if func is aten._local_scalar_dense.default:
        return args[0].dtype is torch.bool or 1
    if func is aten.equal.default:
        return False
    try:
        if kwargs.get("device") is None:
            return func(*args, **kwargs)  # every element counts as not zero
    except RuntimeError:  # no kernel for it on meta
        pass
    shapes = [tuple(leaf.shape) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    raise ModelError(
        f"this model cannot be planned: it branches on the values of a tensor ({func}, shape "
        f"{', '.join(map(str, shapes))}), but a plan knows only its shape; train a few steps instead, whose "
        "time and memory the log has"
    )


def _grouped_mm(a: Tensor, b: Tensor, ends: Tensor, *_: Any) -> Tensor:
    """The output of a product in groups of rows, one matrix each; PyTorch derives it for bfloat16 only."""
    groups = () if b.ndim == 3 else (len(ends),)  # in the backward pass, one product for each group
    return a.new_empty(*groups, a.shape[0], b.shape[-1])


def _all_different(values: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """`unique_dim` as if all rows differed; the captions of a plan are in fact all the same."""
    count = values.new_empty(values.shape[dim], dtype=torch.long)
    return torch.empty_like(values), torch.empty_like(count), torch.empty_like(count)
