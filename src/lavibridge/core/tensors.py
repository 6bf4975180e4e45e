"""Tensors on disk as safetensors: written atomically, with the permissions of other files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lavibridge.core.errors import ModelError
from lavibridge.core.files import write_atomic


def save_tensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors, copied to the CPU; ``metadata`` goes into the header.

    The library's own `save_file` creates files that only their owner may read.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomic(path, save(whole, metadata={"format": "pt", **(metadata or {})}))


def check_tensors_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise ModelError if any value of ``tensors`` is NaN or infinite."""
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    ruined = {name: value for name, value in floating.items() if not bool(value.isfinite().all())}
    if ruined:
        count = sum(int((~value.isfinite()).sum()) for value in ruined.values())
        raise ModelError(
            f"{what}: {count:,} of {sum(value.numel() for value in floating.values()):,} values are not "
            f"finite, among them some of {next(iter(ruined))}: the training that made them diverged. Take an "
            "earlier checkpoint, and train with a lower rate"
        )


def check_tensors_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise ModelError if ``tensors`` have other names or shapes than ours, or are not finite."""
    odd = sorted(own.keys() ^ tensors.keys())
    if odd:
        raise ModelError(
            f"{what} does not fit: {len(own)} weights are needed, {len(tensors)} found; the first that "
            f"differ: {', '.join(odd[:3])}"
        )
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise ModelError(
                f"{what} does not fit: {name} is {tuple(tensors[name].shape)} in the file and must be "
                f"{tuple(value.shape)} here"
            )
    check_tensors_finite(tensors, what)


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 over a network's weights in memory, including names, shapes and dtypes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
