"""Writes tensors as safetensors, atomically and with normal file permissions; checks them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

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
            f"finite, for example in {next(iter(ruined))}: the training has diverged. Use an earlier "
            "checkpoint, and train with a lower learning rate"
        )


def check_tensors_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Raise ModelError if names, shapes or dtypes of ``tensors`` are not those of ``own``, or for NaN."""
    odd = sorted(own.keys() ^ tensors.keys())
    if odd:
        raise ModelError(
            f"{what} does not fit: it has {len(tensors)} weights and needs {len(own)}; the first "
            f"differences: {', '.join(odd[:3])}"
        )
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise ModelError(
                f"{what} does not fit: {name} has shape {tuple(tensors[name].shape)} in the file, but needs "
                f"{tuple(value.shape)}"
            )
        if value.dtype != tensors[name].dtype:
            found, needed = (str(each.dtype).removeprefix("torch.") for each in (tensors[name], value))
            raise ModelError(
                f"{what} does not fit: {name} is {found} in the file, but needs {needed}: take the file as "
                "it was saved"
            )
    check_tensors_finite(tensors, what)
