"""Where a model's frozen weights lie, and in which form: one value, by which both kinds of models load.

    device          memory of the CPU or of a GPU; meta: shapes without values
    dtype           the number format that layers compute in
    quantize        linear layers in 8 or 4 bits; the blocks of a GGUF file
    storage_dtype   layers in 8-bit floating point, cast to dtype while they run
    offload         blocks in files, in memory while they run

The first three are decided as a model loads. The last two are for drawing alone and come last, because they
leave no weights that can be trained, merged or written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError, RecipeError

Quantization = Literal["8bit", "4bit"]
"""Bits of a quantised weight, by the names of recipes."""
BITS_PER_WEIGHT: Mapping[str, float] = {"8bit": 8.0, "4bit": 4.5}
"""Bits per weight of a linear layer: with 4 bits, 64 weights share a 32-bit scale (bitsandbytes)."""
_META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model's frozen weights lie, and in which form."""

    device: torch.device | None = None
    """None leaves weights where they are loaded, on the CPU."""
    dtype: torch.dtype = torch.float32
    quantize: Quantization | Literal["gguf"] | None = None
    storage_dtype: torch.dtype | None = None
    offload: Path | None = None
    """An empty folder for the weights' files."""

    @staticmethod
    def of(config: Any, device: torch.device | None = None) -> "Placement":
        """Return the placement that a model's configuration states, on ``device``."""
        return Placement(device=device, dtype=pick_dtype(config.dtype), quantize=config.quantize)

    @property
    def is_meta(self) -> bool:
        """Whether weights have shapes and no values."""
        return self.device is not None and self.device.type == _META.type

    @property
    def is_final(self) -> bool:
        """Whether no weight may change, or be read, from now on."""
        return self.storage_dtype is not None or self.offload is not None

    @property
    def form(self) -> str | None:
        """The reason why weights cannot be changed; None if they can."""
        if self.offload is not None:
            return f"offloaded into files in {self.offload}"
        if self.storage_dtype is not None:
            return f"stored as {str(self.storage_dtype).removeprefix('torch.')}"
        return {"8bit": "in 8 bits", "4bit": "in 4 bits", "gguf": "in the blocks of a GGUF file"}.get(
            self.quantize or ""
        )


def check_bitsandbytes(setting: str, quantize: Quantization | None) -> None:
    """Raise ModelError if ``setting``, such as `vision.quantize`, needs bitsandbytes, which is missing."""
    if quantize is not None and find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{setting}: {quantize} needs bitsandbytes, which is not installed: "
            "pip install 'lavibridge[quantize]'"
        )


def pick_storage_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of ``float8_e4m3fn`` or ``float8_e5m2``. Raises RecipeError otherwise."""
    known = {"float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2}
    found = known.get(name.removeprefix("torch."))
    if found is None:
        raise RecipeError(f"storage_dtype: '{name}' is not one of {', '.join(known)}")
    return found
