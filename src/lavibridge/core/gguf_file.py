"""Reads the header of a GGUF file, the one-file format of llama.cpp, before any weight.

    GGUF | version | counts     version 2 or 3, little-endian
    key, type, value ...        sizes, rotary positions, the tokenizer's words
    name, shape, type, place    tensors, in blocks of 2 to 8 bits a weight

The header alone says what a file holds, so a wrong or damaged file is refused before a weight is read.
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from lavibridge.core.errors import ModelError

DENOISERS = (
    "flux",
    "sd1",
    "sdxl",
    "sd3",
    "aura",
    "lumina2",
    "qwen_image",
    "wan",
    "ltxv",
    "hidream",
    "cosmos",
)
"""Architectures under which image and video denoisers are published as GGUF."""
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value in the header -> its code in `struct`."""
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS, _DEEPEST_ARRAY = 4, 4
"""Limits of the format, and of what a file may nest."""


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """A tensor as the header describes it."""

    dtype: str
    """Name of its number format, such as Q8_0; its number if the package `gguf` is missing or older."""
    shape: tuple[int, ...]
    """In the order of torch: the last dimension holds the blocks."""
    size: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """The metadata of a GGUF file and where its tensors end."""

    metadata: Mapping[str, Any]
    """Numbers, booleans and strings by key; of an array, its length."""
    tensors: Mapping[str, GgufTensor]
    size: int
    """Bytes that the file has if it is complete."""

    @property
    def architecture(self) -> str:
        """The architecture's name in llama.cpp."""
        return str(self.metadata["general.architecture"])

    def find(self, key: str) -> Any:
        """Return the architecture's value of a key, such as `block_count`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_gguf_header(file: Path) -> GgufHeader:
    """Read the header. Raises ModelError if the file is no GGUF, or ends before its header does."""
    with open(file, "rb") as stream:
        if stream.read(4) != _MAGIC:
            raise ModelError(
                f"'{file}' is not a GGUF file, though its name says so: it does not begin with GGUF"
            )
        try:
            return _parse(stream)
        except (struct.error, ValueError, KeyError, OverflowError, MemoryError, OSError) as error:
            raise ModelError(
                f"'{file}' is damaged or incomplete: its header cannot be read; copy or download it again"
            ) from error


def check_gguf_file(file: Path, header: GgufHeader, size: int) -> None:
    """Raise ModelError for a file of ``size`` bytes that cannot be read: a part, or incomplete.

    Raises it, too, without the package `gguf`, which reads the tensors.
    """
    parts = header.metadata.get("split.count", 1)
    if parts != 1:
        raise ModelError(
            f"'{file}' is one of {parts} parts of a model: join them with `llama-gguf-split --merge` of "
            "llama.cpp"
        )
    if find_spec("gguf") is None:
        raise ModelError(
            f"'{file}' is a GGUF file, which takes the package gguf to read: pip install 'lavibridge[gguf]'"
        )
    if size < header.size:
        raise ModelError(
            f"'{file}' is incomplete: it has {size} of {header.size} bytes; copy or download it again"
        )


def _parse(stream: BinaryIO) -> GgufHeader:
    version, tensor_count, value_count = _unpack(stream, "IQQ")
    if version not in _VERSIONS:
        raise ModelError(
            f"'{stream.name}' is GGUF of version {version}, and versions {_VERSIONS[0]} and {_VERSIONS[1]} "
            "are read (little-endian): convert the model again with a current llama.cpp"
        )
    metadata = {}
    for _ in range(value_count):
        key = _string(stream)
        metadata[key] = _value(stream, *_unpack(stream, "I"))
    if "general.architecture" not in metadata:
        raise KeyError("general.architecture")
    tensors: dict[str, GgufTensor] = {}
    end = 0
    for _ in range(tensor_count):
        name = _string(stream)
        (dimensions,) = _unpack(stream, "I")
        if name in tensors or dimensions > _MOST_DIMENSIONS:
            raise ValueError(name)
        shape = _unpack(stream, f"{dimensions}Q")
        type, place = _unpack(stream, "IQ")
        title, numbers, size = _formats().get(type, (str(type), 1, 0))
        bytes = prod(shape) // numbers * size
        tensors[name] = GgufTensor(dtype=title, shape=shape[::-1], size=bytes)
        end = max(end, place + bytes)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError("general.alignment")
    begin = -(-stream.tell() // alignment) * alignment
    return GgufHeader(metadata=metadata, tensors=tensors, size=begin + end)


@cache
def _formats() -> Mapping[int, tuple[str, int, int]]:
    """Return the name, and the numbers and the bytes of a block, by type of tensor.

    Empty without the package `gguf`.
    """
    if find_spec("gguf") is None:
        return {}
    from gguf import GGML_QUANT_SIZES

    return {type.value: (type.name, *sizes) for type, sizes in GGML_QUANT_SIZES.items()}


def _value(stream: BinaryIO, type: int, depth: int = 0) -> Any:
    if type in _SCALARS:
        return _unpack(stream, _SCALARS[type])[0]
    if type == _STRING:
        return _string(stream)
    if type != _ARRAY or depth == _DEEPEST_ARRAY:
        raise KeyError(type)
    inner, count = _unpack(stream, "IQ")
    if inner in _SCALARS:
        stream.seek(struct.calcsize(f"<{_SCALARS[inner]}") * count, os.SEEK_CUR)
    else:
        for _ in range(count):
            _value(stream, inner, depth + 1)
    return count


def _string(stream: BinaryIO) -> str:
    (length,) = _unpack(stream, "Q")
    if length > os.fstat(stream.fileno()).st_size:  # otherwise a few bytes could ask for all of the memory
        raise ValueError(f"a string of {length} bytes")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("the file ends within a string")
    return str(text, "utf-8")


def _unpack(stream: BinaryIO, codes: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{codes}", stream.read(struct.calcsize(f"<{codes}")))
