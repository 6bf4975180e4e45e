"""Reads and writes a CONDITIONING as one safetensors file.

    tensors     NUMBER/cond          (1, token, width), float
                NUMBER/KEY           every entry of the dictionary that is a tensor
    metadata    lavibridge_conditioning   the format, 1
                NUMBER               the other entries, as JSON: numbers, texts, and lists of these

The file holds no code and no reference to a model.
"""

import json
from pathlib import Path
from typing import Any

import torch

from lavibridge.core.errors import DataError
from lavibridge.core.safetensors_file import read_safetensors_header, read_tensors
from lavibridge.core.tensors import check_tensors_finite, save_tensors

FORMAT = "1"
_FORMAT_KEY, _COND = "lavibridge_conditioning", "cond"
_PLAIN = (str, int, float, bool, type(None))


def write_conditioning(conditioning: list[list[Any]], file: Path) -> None:
    """Write a conditioning. Raises DataError for entries that no file can hold, such as a ControlNet."""
    tensors: dict[str, torch.Tensor] = {}
    metadata = {_FORMAT_KEY: FORMAT}
    for number, (cond, extra) in enumerate(conditioning):
        values: dict[str, Any] = {}
        tensors[f"{number}/{_COND}"] = cond
        for key, value in extra.items():
            if isinstance(value, torch.Tensor) and "/" not in key and key != _COND:
                tensors[f"{number}/{key}"] = value
            elif _is_plain(value):
                values[key] = value
            elif value is not None:
                raise DataError(
                    f"Save conditioning: the entry '{key}' is a {type(value).__name__}, which a file cannot "
                    "hold: save the conditioning before the node that adds it"
                )
        metadata[str(number)] = json.dumps(values, allow_nan=False)
    save_tensors({name: value.clone() for name, value in tensors.items()}, file, metadata)


def read_conditioning(file: Path) -> list[list[Any]]:
    """Read a conditioning.

    Raises ModelError if the file is damaged or holds values that are not finite, and DataError if it is no
    conditioning.
    """
    header = read_safetensors_header(file)
    if header.metadata.get(_FORMAT_KEY) != FORMAT:
        raise DataError(f"'{file}' is no conditioning that 'Save conditioning' wrote: give another file")
    tensors = read_tensors(header, header.tensors, torch.float32)
    check_tensors_finite(tensors, f"'{file}'")
    entries: list[list[Any]] = []
    while f"{len(entries)}/{_COND}" in tensors:
        start = f"{len(entries)}/"
        own = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        values = _values(file, header.metadata.get(str(len(entries)), ""))
        cond = own.pop(_COND)
        if cond.ndim != 3 or not cond.is_floating_point() or 0 in cond.shape:
            raise DataError(f"'{file}' is damaged: a conditioning has the shape {list(cond.shape)}")
        entries.append([cond, {**values, **own}])
    if not entries or sum(1 + len(_tensors_of(extra)) for _, extra in entries) != len(tensors):
        raise DataError(f"'{file}' is damaged: its tensors are not those of a conditioning")
    return entries


def _values(file: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{file}' is damaged: its metadata is not valid JSON ({error})") from None
    if not isinstance(found, dict) or not all(map(_is_plain, found.values())):
        raise DataError(f"'{file}' is damaged: its metadata holds other things than plain values")
    return found


def _tensors_of(extra: dict[str, Any]) -> list[torch.Tensor]:
    return [value for value in extra.values() if isinstance(value, torch.Tensor)]


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, or a list of these."""
    if isinstance(value, list | tuple):
        return all(isinstance(each, _PLAIN) for each in value)
    return isinstance(value, _PLAIN) and value is not None
