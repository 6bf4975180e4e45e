"""Tensors on disk: safetensors, written as a whole or not at all, and readable to whom other files are."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from lavibridge.core.files import write_atomic


def save_tensors(state: Mapping[str, Tensor], path: Path, told: Mapping[str, str] | None = None) -> None:
    """Write named tensors, copied to the CPU; ``told`` goes into the header.

    The library's own `save_file` leaves files that nobody but their owner may read.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    write_atomic(path, save(whole, metadata={"format": "pt", **(told or {})}))
