"""Chooses the device, the number format and the number of threads."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from lavibridge.core.errors import RecipeError

_KINDS = {"cpu": "CPU", "cuda": "CUDA GPU", "mps": "Apple GPU"}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """Return the named device; ``auto`` prefers CUDA, then Apple's GPU, then the CPU.

    Raises RecipeError for an unknown or unavailable device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError(f"device: '{name}' is not a device; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in _KINDS:
        raise RecipeError(f"device: '{name}' is not supported; use {', '.join(_KINDS)} or auto")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there[device.type]:
        seen = f"{there[device.type] or 'no'} {_KINDS[device.type]}"
        raise RecipeError(f"device: '{name}' is not available, torch finds {seen}; use auto or cpu")
    return device


def pick_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of ``float32``, ``bfloat16`` or ``float16``. Raises RecipeError otherwise."""
    if name not in _DTYPES:
        raise RecipeError(f"dtype: '{name}' is not one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def dtype_name(dtype: str | torch.dtype) -> str:
    """Return the name of a number format that models load in. Raises RecipeError for any other."""
    name = str(dtype).removeprefix("torch.")
    pick_dtype(name)
    return name


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 natively; torch before 2.11 cannot tell.

    If so, products of large matrices take half the time; a U-Net of a few million weights gains 10 to 20 %
    (docs/performance.md).
    """
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def set_threads() -> int:
    """Use the cores available to this process, or OMP_NUM_THREADS if it is set; return their number."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
    threads = int(wanted) if wanted.isdigit() and int(wanted) > 0 else affinity or os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads
