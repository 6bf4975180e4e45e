"""Reads weight files of other projects: safetensors, and pickles that hold only tensors.

Pickles are always read with ``weights_only``: a file that would run code is an error.
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
    """Read the named tensors of a safetensors file or a pickled state dict.

    Raises ModelError if the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    if path.suffix != ".safetensors":
        content = _unpickled(path)
        is_named = isinstance(content, dict) and all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
        )
        if not is_named or not content:
            raise ModelError(f"{path} must hold tensors by name, found {_described(content)}")
        return dict(content)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a complete safetensors file ({str(error).strip()}): use another copy of it"
        ) from error


def read_weight_list(path: Path) -> list[Tensor]:
    """Read the tensors of a pickled list. Raises ModelError if the file holds anything else."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = _unpickled(path)
    if not isinstance(content, list) or not all(isinstance(value, Tensor) for value in content):
        raise ModelError(f"{path} must hold a plain list of tensors, found {_described(content)}")
    return [value.detach() for value in content]


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other kinds of pickles: the errors below explain them
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(
            f"{path} is damaged or holds more than tensors, and a pickle with more than tensors could run "
            "code: use the original file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path} is not a complete torch file ({reason}): use another copy of it") from error


def _described(content: Any) -> str:
    if isinstance(content, dict | list):
        kinds = sorted(
            {type(value).__name__ for value in (content.values() if isinstance(content, dict) else content)}
        )
        return f"a {type(content).__name__} of {len(content)} ({', '.join(kinds) or 'nothing'})"
    return f"a {type(content).__name__}"
