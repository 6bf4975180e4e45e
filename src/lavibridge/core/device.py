"""Which device, which number format, how many threads."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from lavibridge.core.errors import RecipeError

KINDS = {"cpu": "CPU", "cuda": "CUDA GPU", "mps": "Apple GPU"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """The named device; ``auto`` takes a CUDA GPU, else Apple's, else the CPU."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RecipeError(f"device: '{name}' is no device; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in KINDS:
        raise RecipeError(
            f"device: '{name}' is none that this package runs on; use {', '.join(KINDS)} or auto"
        )
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there[device.type]:
        seen = f"{there[device.type] or 'no'} {KINDS[device.type]}"
        raise RecipeError(f"device: '{name}' was asked for, but torch sees {seen} here; use auto or cpu")
    return device


def pick_dtype(name: str) -> torch.dtype:
    """The torch type of ``float32``, ``bfloat16`` or ``float16``."""
    if name not in DTYPES:
        raise RecipeError(f"dtype: '{name}' is not one of {', '.join(DTYPES)}")
    return DTYPES[name]


def dtype_name(dtype: str | torch.dtype) -> str:
    """The name of a number format that models are loaded in; RecipeError for any other."""
    name = str(dtype).removeprefix("torch.")
    pick_dtype(name)
    return name


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 itself; before torch 2.11 it cannot be asked.

    Products of large matrices then take half the time; a U-Net of a few million weights gains a tenth to
    a fifth (docs/performance.md).
    """
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def set_threads() -> int:
    """Use the cores that this process may run on, or OMP_NUM_THREADS where it is set; returns the number."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    affinity = len(os.sched_getaffinity(0)) if os.name == "posix" and hasattr(os, "sched_getaffinity") else 0
    threads = int(wanted) if wanted.isdigit() and int(wanted) > 0 else affinity or os.cpu_count() or 1
    torch.set_num_threads(threads)
    return threads
