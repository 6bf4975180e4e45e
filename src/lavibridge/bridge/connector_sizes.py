"""Compares the options of a saved connector with the header of its weights, before the connector is built.

    options: blocks, width, ...  --numbers within the sizes of the weights?--> network on the meta device
                                 --same names and shapes as the header?-->     network in memory

A description of a few bytes may ask for any number of blocks of any width, and the memory for them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lavibridge.bridge.saved_bridge import CONNECTOR_WEIGHTS, DESCRIPTION, SavedBridge
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import TextSpec, VisionSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.safetensors_file import read_safetensors_header


def check_connector_sizes(
    stored: SavedBridge, connector: type[Connector], config: Any, text: TextSpec, vision: VisionSpec
) -> None:
    """Raise ModelError if a connector with these options does not have the shapes of its saved weights."""
    header = read_safetensors_header(stored.folder / CONNECTOR_WEIGHTS)
    sides = (side for tensor in header.tensors.values() for side in tensor.shape)
    most = max(sides, default=0)
    most = max(most, len(header.tensors))
    for name, value in _whole_numbers(config.model_dump()):
        if abs(value) > most:
            raise ModelError(
                f"{stored.folder / DESCRIPTION} is damaged: the connector's {name} is {value:,}, and "
                f"its weights have no side above {most:,}: take another copy"
            )
    with torch.device("meta"):
        own = connector(config, text, vision).state_dict()
    needed = {name: tuple(value.shape) for name, value in own.items()}
    found = {name: tensor.shape for name, tensor in header.tensors.items()}
    wrong = [name for name in {**needed, **found} if needed.get(name) != found.get(name)]
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"the saved connector does not fit between the bridge's models: {name} has shape "
            f"{found.get(name)} in {header.file}, but needs {needed.get(name)}: check whether these models "
            "have changed"
        )


def _whole_numbers(options: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers in options, with their names."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _whole_numbers(value, str(key))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _whole_numbers(value, name)
    elif isinstance(options, int) and not isinstance(options, bool):
        yield name, options
