"""Reads weight files of other projects: safetensors, and pickles that hold only tensors.

A pickle is read only if it is a zip archive as torch writes it, which names nothing but tensors, and with
``weights_only``. A file that would run code, or that unpacks to more than its own size, is an error.
"""

import re
import warnings
from pathlib import Path
from pickle import UnpicklingError
from pickletools import genops
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.core.safetensors_file import load_tensors

_TENSORS = re.compile(
    r"collections OrderedDict|torch \w+Storage|torch\.storage UntypedStorage"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
)
"""What the pickle of a file of tensors names: module and name."""


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
    return load_tensors(path)


def read_weight_list(path: Path) -> list[Tensor]:
    """Read the tensors of a pickled list. Raises ModelError if the file holds anything else."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = _unpickled(path)
    if not isinstance(content, list) or not all(isinstance(value, Tensor) for value in content):
        raise ModelError(f"{path} must hold a plain list of tensors, found {_described(content)}")
    return [value.detach() for value in content]


def _unpickled(path: Path) -> Any:
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other kinds of pickles: the errors below explain them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(
            f"{path} is damaged or holds more than tensors, and a pickle with more than tensors could run "
            "code: use the original file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path} is not a complete torch file ({reason}): use another copy of it") from error
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for value in values:
        if isinstance(value, Tensor) and value.nbytes > value.untyped_storage().nbytes():
            raise ModelError(f"{path} holds a tensor that is larger than its data: use another copy of it")
    return content


def _check_archive(path: Path) -> None:
    """Raise ModelError unless a file is an uncompressed archive whose pickle names nothing but tensors."""
    try:
        with ZipFile(path) as archive:
            if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
                raise ModelError(f"{path} is compressed, which torch never does: use the original file")
            pickles = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
            named = {
                str(value)
                for entry in pickles
                for code, value, _ in genops(archive.read(entry))
                if code.name in ("GLOBAL", "STACK_GLOBAL", "INST")
            }
    except (BadZipFile, ValueError, OSError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"{path} is no file of torch 1.6 or newer ({error}), and older ones are not read: use another "
            "copy of it, or load and save it again"
        ) from error
    foreign = sorted(name for name in named if not _TENSORS.fullmatch(name))
    if foreign:
        raise ModelError(
            f"{path} holds more than tensors ({foreign[0][:80]}), and a pickle with more than tensors could "
            "run code: use the original file"
        )


def _described(content: Any) -> str:
    if isinstance(content, dict | list):
        kinds = sorted(
            {type(value).__name__ for value in (content.values() if isinstance(content, dict) else content)}
        )
        return f"a {type(content).__name__} of {len(content)} ({', '.join(kinds) or 'nothing'})"
    return f"a {type(content).__name__}"
