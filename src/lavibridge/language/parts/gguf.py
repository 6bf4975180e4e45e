"""Language models in GGUF, the one-file format of llama.cpp. Transformers dequantises them as it loads.

    GGUF | version | counts     header of the file, version 2 or 3, little-endian
    key, type, value ...        sizes, rotary positions, the tokenizer's words
    name, shape, type, place    tensors, in blocks of 2 to 8 bits a weight

A GGUF file saves disk and download, not memory: the loaded model has the number format that `dtype` names,
and is as large as one from safetensors. The header alone decides the family and is enough for `lavi plan`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from copy import deepcopy
from functools import lru_cache
from io import StringIO
from math import pi
from pathlib import Path
from typing import Any

import transformers
from numpy import allclose, arange, clip
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.core.gguf_file import DENOISERS, GgufHeader, check_gguf_file, read_gguf_header
from lavibridge.core.model_folders import ADAPTER, refuse_adapter
from lavibridge.language.parts.architecture import Architecture

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
    if (file.parent / ADAPTER).exists():
        raise refuse_adapter(str(file.parent))
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
    header = read_gguf_header(file)
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
            f"'{file}' holds the image or video model '{architecture}', no language model: give an image "
            "model as vision.source"
        )
    readable = sorted(set(GGUF_CONFIG_MAPPING) - {"general", "tokenizer"})
    if not any(architecture.replace("-", "_").startswith(each) for each in readable):
        raise ModelError(
            f"'{file}' has the architecture '{architecture}', which transformers does not read from GGUF (it "
            f"reads {', '.join(readable)}): take the model's folder with safetensors"
        )
    if "tokenizer.ggml.model" not in header.metadata:
        raise ModelError(f"'{file}' has no tokenizer: take the model's folder with safetensors")
    check_gguf_file(file, header, size)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn every error of reading the file into a ModelError; hide the progress bar without a terminal."""
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO()):
            yield
    except Exception as error:  # transformers and gguf pass on whatever a wrong file leads to
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"'{file}' cannot be read as a GGUF language model: {reason}") from error
