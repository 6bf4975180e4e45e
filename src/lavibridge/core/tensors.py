"""Tensors on disk: safetensors, written as a whole or not at all, and readable to whom other files are."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lavibridge.core.errors import ModelError
from lavibridge.core.files import write_atomic


def save_tensors(state: Mapping[str, Tensor], path: Path, told: Mapping[str, str] | None = None) -> None:
    """Write named tensors, copied to the CPU; ``told`` goes into the header.

    The library's own `save_file` leaves files that nobody but their owner may read.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomic(path, save(whole, metadata={"format": "pt", **(told or {})}))


def check_finite(given: Mapping[str, Tensor], what: str) -> None:
    """Raise ModelError where values of the ``given`` tensors are NaN or infinite."""
    floating = {name: value for name, value in given.items() if value.is_floating_point()}
    ruined = {name: value for name, value in floating.items() if not bool(value.isfinite().all())}
    if ruined:
        count = sum(int((~value.isfinite()).sum()) for value in ruined.values())
        raise ModelError(
            f"{what}: {count:,} of {sum(value.numel() for value in floating.values()):,} values are not "
            f"finite, among them some of {next(iter(ruined))}: the training that made them diverged. Take an "
            "earlier checkpoint, and train with a lower rate"
        )


def check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    """Raise ModelError where the ``given`` tensors have not exactly our names and shapes, or are infinite."""
    odd = sorted(own.keys() ^ given.keys())
    if odd:
        raise ModelError(
            f"{what} does not fit: {len(own)} weights are needed, {len(given)} found; the first that differ: "
            f"{', '.join(odd[:3])}"
        )
    for name, value in own.items():
        if value.shape != given[name].shape:
            raise ModelError(
                f"{what} does not fit: {name} is {tuple(given[name].shape)} in the file and has to be "
                f"{tuple(value.shape)} here"
            )
    check_finite(given, what)


def weights_hash(module: nn.Module) -> str:
    """The SHA-256 over a network's weights in memory, names, shapes and number formats included."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
