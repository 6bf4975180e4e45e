"""Language models in GGUF, the one-file format of llama.cpp. Transformers dequantises them as it loads.

    GGUF | version | counts     header of the file, version 2 or 3, little-endian
    key, type, value ...        sizes, rotary positions, the tokenizer's words
    name, shape, type, place    tensors, in blocks of 2 to 8 bits a weight

A GGUF file saves disk and download, not memory: the loaded model has the number format that `dtype` names,
and is as large as one from safetensors. The header alone decides the family and is enough for `lavi plan`.
"""

import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from io import StringIO
from math import pi, prod
from pathlib import Path
from typing import Any, BinaryIO

import transformers
from numpy import allclose, arange, clip
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.language.parts.architecture import Architecture

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value in the header -> its code in `struct`."""
STRING, ARRAY = 8, 9
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
FREQUENCIES = "rope_freqs.weight"
"""Tensor with a divisor for each rotary frequency."""
LLAMA3_SCALING = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What the models from Llama 3.1 to 3.3 have in common. Their factor, 8 or 32, is the largest divisor."""
SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
"""Architecture -> blocks of its 27B model, whose attention scale follows the width, not the head."""


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """The metadata of a GGUF file and where its tensors end."""

    metadata: Mapping[str, Any]
    """Numbers, booleans and strings by key; of an array, its length."""
    tensors: tuple[str, ...]
    """Names of the tensors."""
    size: int
    """Bytes that the file has if it is complete."""

    @property
    def architecture(self) -> str:
        """The architecture's name in llama.cpp."""
        return str(self.metadata["general.architecture"])

    def find(self, key: str) -> Any:
        """Return the architecture's value of a key, such as `block_count`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_gguf_config(file: Path) -> dict[str, Any]:
    """Return the configuration in a GGUF file as config.json has it; reads no weights.

    Raises ModelError if the file is no GGUF or incomplete, holds no language model that transformers reads,
    or needs the package `gguf`.
    """
    found = file.stat()
    return deepcopy(_read_config(file.absolute(), found.st_size, found.st_mtime_ns))


def load_gguf(file: Path, architecture: Architecture, dtype: str) -> tuple[Any, Any, set[str]]:
    """Return the model, the tokenizer and the names of missing weights of a GGUF file.

    Raises ModelError if anything cannot be read.
    """
    rest = dict(architecture.options)
    place = {"gguf_file": str(file.absolute()), "trust_remote_code": False}
    # Versions of transformers that can keep the blocks packed would put layers there that take no LoRA.
    unpacked = getattr(transformers, "GgufConfig", None)
    if unpacked is not None:
        rest = {**rest, "quantization_config": unpacked(dequantize=True)}
    with _reading(file):
        backbone, report = architecture.model.from_pretrained(
            str(file.parent),
            config=architecture.settings,
            dtype=pick_dtype(dtype),
            output_loading_info=True,
            **place,
            **rest,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(file.parent), **place)
    return backbone, tokenizer, set(report["missing_keys"])


@lru_cache(maxsize=8)
def _read_config(file: Path, size: int, mtime_ns: int) -> dict[str, Any]:
    """Read the configuration; a file of another size or time is another file."""
    header = _read_header(file)
    _check(file, header, size)
    with _reading(file):
        config: dict[str, Any] = transformers.PretrainedConfig.get_config_dict(
            str(file.parent), gguf_file=str(file)
        )[0]
    return config | _left_out(header) | _rope_scaling(file, header)


def _left_out(header: GgufHeader) -> dict[str, Any]:
    """Return settings that the header states and transformers does not take from it."""
    architecture, head = header.architecture, header.find("attention.key_length")
    if architecture.startswith("t5"):
        is_gated = any("ffn_gate" in name for name in header.tensors)
        return {"feed_forward_proj": "gated-gelu" if is_gated else "relu", "is_gated_act": is_gated}
    found = {} if head is None else {"head_dim": head}
    if head is not None and architecture in SCALED_BY_WIDTH:
        by_width = header.find("block_count") == SCALED_BY_WIDTH[architecture]
        width, heads = header.find("embedding_length"), header.find("attention.head_count")
        found["query_pre_attn_scalar"] = width // heads if by_width else head
    return found


def _rope_scaling(file: Path, header: GgufHeader) -> dict[str, Any]:
    """Return the scaling of rotary positions, which transformers does not take from the file.

    Raises ModelError for a scaling other than `linear` (Gemma 3) and that of Llama 3.
    """
    scaling = header.find("rope.scaling.type") or "none"
    if FREQUENCIES in header.tensors:
        found = _llama3_scaling(file, header)
    elif scaling == "linear":
        found = {"rope_type": "linear", "factor": float(header.find("rope.scaling.factor"))}
    else:
        found = None
    if found is None and scaling != "none":
        raise ModelError(
            f"'{file}' scales its rotary positions by '{scaling}', which is not read from GGUF: its "
            "features would be wrong; take the model's folder with safetensors"
        )
    return {} if found is None else {"rope_scaling": found}


def _llama3_scaling(file: Path, header: GgufHeader) -> dict[str, Any]:
    """Return Llama 3's scaling if it explains the divisors of the frequencies that the file has."""
    from gguf import GGUFReader

    divisors = next(each.data for each in GGUFReader(file).tensors if each.name == FREQUENCIES)
    width, base = int(header.find("rope.dimension_count")), float(header.find("rope.freq_base") or 10_000.0)
    scaling = {**LLAMA3_SCALING, "factor": float(divisors.max())}
    turns = LLAMA3_SCALING["original_max_position_embeddings"] / (
        2 * pi * base ** (arange(0, width, 2) / width)
    )
    low, high = LLAMA3_SCALING["low_freq_factor"], LLAMA3_SCALING["high_freq_factor"]
    share = clip((turns - low) / (high - low), 0, 1)
    if not allclose(divisors, 1 / (share + (1 - share) / scaling["factor"]), rtol=1e-3):
        raise ModelError(
            f"'{file}' scales its rotary positions in another way than Llama 3, which is not read from GGUF: "
            "take the model's folder with safetensors"
        )
    return {"rope_type": "llama3", **scaling}


def _check(file: Path, header: GgufHeader, size: int) -> None:
    """Raise ModelError for a file that would not load, or would load as another model than it is."""
    architecture = header.architecture
    if architecture in DENOISERS:
        raise ModelError(
            f"'{file}' holds the image or video model '{architecture}', and only language models are read "
            "from GGUF: give a folder or a hub id of Diffusers"
        )
    readable = sorted(set(GGUF_CONFIG_MAPPING) - {"general", "tokenizer"})
    if not any(architecture.replace("-", "_").startswith(each) for each in readable):
        raise ModelError(
            f"'{file}' has the architecture '{architecture}', which transformers does not read from GGUF (it "
            f"reads {', '.join(readable)}): take the model's folder with safetensors"
        )
    if header.metadata.get("split.count", 1) > 1:
        raise ModelError(
            f"'{file}' is one of {header.metadata['split.count']} parts of a model: join them with "
            "`llama-gguf-split --merge` of llama.cpp"
        )
    if "tokenizer.ggml.model" not in header.metadata:
        raise ModelError(f"'{file}' has no tokenizer: take the model's folder with safetensors")
    if find_spec("gguf") is None:
        raise ModelError(
            f"'{file}' is a GGUF file, which takes the package gguf to read: pip install 'lavibridge[gguf]'"
        )
    if size < header.size:
        raise ModelError(
            f"'{file}' is incomplete: it has {size} of {header.size} bytes; copy or download it again"
        )


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn every error of reading the file into a ModelError; hide the progress bar without a terminal."""
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):
            yield
    except Exception as error:  # transformers and gguf pass on whatever a wrong file leads to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"'{file}' cannot be read as a GGUF language model: {reason}") from error


def _read_header(file: Path) -> GgufHeader:
    """Read the header. Raises ModelError if the file is no GGUF, or ends before its header does."""
    with open(file, "rb") as stream:
        if stream.read(4) != MAGIC:
            raise ModelError(
                f"'{file}' is not a GGUF file, though its name says so: it does not begin with GGUF"
            )
        try:
            return _parse(stream)
        except (struct.error, UnicodeDecodeError, KeyError, OverflowError, MemoryError) as error:
            raise ModelError(
                f"'{file}' is damaged or incomplete: its header cannot be read; copy or download it again"
            ) from error


def _parse(stream: BinaryIO) -> GgufHeader:
    version, tensor_count, value_count = _unpack(stream, "IQQ")
    if version not in VERSIONS:
        raise ModelError(
            f"'{stream.name}' is GGUF of version {version}, and versions {VERSIONS[0]} and {VERSIONS[1]} are "
            "read (little-endian): convert the model again with a current llama.cpp"
        )
    metadata = {}
    for _ in range(value_count):
        key = _string(stream)
        metadata[key] = _value(stream, *_unpack(stream, "I"))
    if "general.architecture" not in metadata:
        raise KeyError("general.architecture")
    names, ends = [], [0]
    for _ in range(tensor_count):
        names.append(_string(stream))
        (dimensions,) = _unpack(stream, "I")
        shape = _unpack(stream, f"{dimensions}Q")
        type, place = _unpack(stream, "IQ")
        numbers, size = _blocks().get(type, (1, 0))
        ends.append(place + prod(shape) // numbers * size)
    alignment = int(metadata.get("general.alignment", 32))
    begin = -(-stream.tell() // alignment) * alignment
    return GgufHeader(metadata=metadata, tensors=tuple(names), size=begin + max(ends))


@cache
def _blocks() -> Mapping[int, tuple[int, int]]:
    """Return the numbers and the bytes of a block by type of tensor; empty without the package `gguf`."""
    if find_spec("gguf") is None:
        return {}
    from gguf import GGML_QUANT_SIZES

    return {type.value: sizes for type, sizes in GGML_QUANT_SIZES.items()}


def _value(stream: BinaryIO, type: int) -> Any:
    if type in SCALARS:
        return _unpack(stream, SCALARS[type])[0]
    if type == STRING:
        return _string(stream)
    if type != ARRAY:
        raise KeyError(type)
    inner, count = _unpack(stream, "IQ")
    if inner in SCALARS:
        stream.seek(struct.calcsize(f"<{SCALARS[inner]}") * count, 1)
    else:
        for _ in range(count):
            _value(stream, inner)
    return count


def _string(stream: BinaryIO) -> str:
    (length,) = _unpack(stream, "Q")
    return str(_unpack(stream, f"{length}s")[0], "utf-8")


def _unpack(stream: BinaryIO, codes: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{codes}", stream.read(struct.calcsize(f"<{codes}")))
