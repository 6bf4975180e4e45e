"""Reads a safetensors file that others wrote: its header first, then the tensors that are asked for.

    size of the header, 8 bytes | header, JSON: name -> dtype, shape, place | tensors

The header alone says what a file holds, so a wrong or damaged file is refused before a weight is read.
Tensors are mapped into memory, not copied. Weights in 8-bit floating point become ``dtype`` as they are read,
times the scale that ComfyUI stores beside them:

    weight = float8 weight * scale        NAME.weight, NAME.scale_weight (one number)
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.core.files import LFS

LARGEST_HEADER = 100_000_000
"""Bytes; the format allows no larger header."""
FLOAT8 = ("F8_E4M3", "F8_E5M2")
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", *FLOAT8), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes of a number by its type in the header."""
_SCALES = (".scale_weight", ".weight_scale")
_LEFT_OUT = (*_SCALES, ".scale_input", ".input_scale", "scaled_fp8")
"""Ends of the names that belong to the scaling, not to the model."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SafetensorsHeader:
    """What a safetensors file holds."""

    file: Path
    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]


def read_safetensors_header(file: Path) -> SafetensorsHeader:
    """Read and check the header of a file; reads no tensor.

    Raises ModelError if the file is missing, no safetensors file, incomplete or damaged, or has a number type
    that is not read.
    """
    if not file.is_file():
        raise ModelError(f"there is no file {file}")
    total = file.stat().st_size
    with open(file, "rb") as stream:
        begin = stream.read(8)
        if LFS.startswith(begin) and begin:
            raise ModelError(f"{file} is a pointer of git-lfs: fetch the file itself with `git lfs pull`")
        size = int.from_bytes(begin, "little")
        if len(begin) < 8 or size > LARGEST_HEADER or size < 2:
            raise ModelError(f"'{file}' is not a safetensors file, though its name says so")
        if size > total - 8:
            raise ModelError(f"'{file}' is incomplete: its header ends after the file; {_AGAIN}")
        text = stream.read(size)
    try:
        content = json.loads(text, object_pairs_hook=_without_duplicates)
        metadata = content.pop("__metadata__", {})
        places = {name: _place(entry) for name, entry in content.items()}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("metadata that is no text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"'{file}' is damaged: its header cannot be read ({error}); {_AGAIN}") from error
    _check_places(file, places, total - 8 - size)
    tensors = {name: tensor for name, (tensor, _, _) in places.items()}
    return SafetensorsHeader(file=file, metadata=metadata, tensors=tensors)


def read_tensors(header: SafetensorsHeader, names: Iterable[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return tensors of a file by name, without scales; only weights in 8 bits are converted to ``dtype``.

    Raises ModelError if the file cannot be read.
    """
    try:
        with safe_open(header.file, framework="pt") as content:
            return {
                name: _full(content, header, name, dtype) for name in names if not name.endswith(_LEFT_OUT)
            }
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{header.file}' cannot be read ({str(error).strip()}); {_AGAIN}") from error


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return all tensors of a file in their own number types.

    Raises ModelError if the file is missing, no safetensors file, incomplete or damaged.
    """
    header = read_safetensors_header(file)
    try:
        with safe_open(file, framework="pt") as content:
            return {name: content.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{file}' cannot be read ({str(error).strip()}); {_AGAIN}") from error


def meta_tensors(header: SafetensorsHeader, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the same tensors without their values, on the meta device."""
    return {
        name: torch.empty(header.tensors[name].shape, device="meta")
        for name in names
        if not name.endswith(_LEFT_OUT)
    }


def check_number_types(header: SafetensorsHeader) -> None:
    """Raise ModelError if weights are quantised in a way that is not read."""
    for name, tensor in header.tensors.items():
        is_scale = name.endswith(_SCALES)
        packed = tensor.dtype in ("U8", "I8") and prod(tensor.shape) > 1
        if packed or (is_scale and prod(tensor.shape) != 1):
            raise ModelError(
                f"'{header.file}' holds quantised weights that are not read ({name}: {tensor.dtype} of shape "
                f"{list(tensor.shape)}): take the model's file in float32, float16, bfloat16, or float8 with "
                "one scale for each weight"
            )


_AGAIN = "copy or download it again"


def _full(content: Any, header: SafetensorsHeader, name: str, dtype: torch.dtype) -> Tensor:
    value: Tensor = content.get_tensor(name)
    if header.tensors[name].dtype not in FLOAT8:
        return value
    base = name.removesuffix(".weight")
    scale = next((base + end for end in _SCALES if base + end in header.tensors), None)
    wide = value.float()
    return (wide if scale is None else wide * content.get_tensor(scale).float()).to(dtype)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _place(entry: Any) -> tuple[StoredTensor, int, int]:
    """Return a tensor with the first byte and the byte after its last."""
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if not all(type(each) is int and each >= 0 for each in (*shape, start, end)):
        raise ValueError("a size or place is no whole number")
    return StoredTensor(dtype=str(entry["dtype"]), shape=tuple(shape)), start, end


def _check_places(file: Path, places: Mapping[str, tuple[StoredTensor, int, int]], size: int) -> None:
    """Raise ModelError unless the tensors fill the rest of the file, one behind the other."""
    last = 0
    for name, (tensor, start, end) in sorted(places.items(), key=lambda item: item[1][1:]):
        if tensor.dtype not in BYTES:
            raise ModelError(
                f"'{file}' stores {name} as {tensor.dtype}, which is not read (read are {', '.join(BYTES)}): "
                "take the model's file in another number format"
            )
        if start != last or end - start != prod(tensor.shape) * BYTES[tensor.dtype]:
            raise ModelError(
                f"'{file}' is damaged: the place of {name} in it is wrong ({start} to {end}, for "
                f"{tensor.dtype} of shape {list(tensor.shape)}); {_AGAIN}"
            )
        last = end
    if last != size:
        state = "incomplete" if last > size else "damaged"
        raise ModelError(f"'{file}' is {state}: its tensors need {last} bytes and it has {size}; {_AGAIN}")
