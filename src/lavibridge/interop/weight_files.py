"""Reading weight files that others have written: safetensors, and pickles that hold tensors and nothing else.

Pickles are read with ``weights_only`` and in no other way: a file that would run code is refused.
"""

import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lavibridge.core.errors import ModelError


def read_named_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file or of a pickled state dict; raises ModelError."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    if path.suffix != ".safetensors":
        content = _unpickled(path)
        is_named = isinstance(content, dict) and all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
        )
        if not is_named or not content:
            raise ModelError(f"{path} should hold tensors by name, found {_described(content)}")
        return dict(content)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is no whole safetensors file ({str(error).strip()}): take another copy of it"
        ) from error


def read_weight_list(path: Path) -> list[Tensor]:
    """The tensors of a pickled plain list; raises ModelError for anything else."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = _unpickled(path)
    if not isinstance(content, list) or not all(isinstance(value, Tensor) for value in content):
        raise ModelError(f"{path} should hold a plain list of tensors, found {_described(content)}")
    return [value.detach() for value in content]


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other kinds of pickles: what is wrong is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(
            f"{path} is refused: it holds more than tensors, or is damaged; only plain tensors are read from "
            "a pickle, as it could run code otherwise. Take the original file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path} is no whole file of torch ({reason}): take another copy of it") from error


def _described(content: Any) -> str:
    if isinstance(content, dict | list):
        kinds = sorted(
            {type(value).__name__ for value in (content.values() if isinstance(content, dict) else content)}
        )
        return f"a {type(content).__name__} of {len(content)} ({', '.join(kinds) or 'nothing'})"
    return f"a {type(content).__name__}"
