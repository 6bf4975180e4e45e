"""Connect a pretrained language model to a pretrained image diffusion model, train the connection, and draw.

    from lavibridge import Bridge

The names below are imported when first used, so that ``import lavibridge`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lavibridge.bridge import Bridge as Bridge
    from lavibridge.interop.export import export as export
    from lavibridge.interop.hook import connect as connect
    from lavibridge.interop.lora_read import read_lora_file as read_lora_file
    from lavibridge.interop.pipelines import prompt_inputs as prompt_inputs
    from lavibridge.interop.pipelines import to_diffusers as to_diffusers
    from lavibridge.interop.released import import_released as import_released
    from lavibridge.lora import LoraSettings as LoraSettings

try:
    __version__ = version("lavibridge")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"

_HOMES = {
    "Bridge": "lavibridge.bridge",
    "LoraSettings": "lavibridge.lora",
    "connect": "lavibridge.interop.hook",
    "export": "lavibridge.interop.export",
    "import_released": "lavibridge.interop.released",
    "prompt_inputs": "lavibridge.interop.pipelines",
    "read_lora_file": "lavibridge.interop.lora_read",
    "to_diffusers": "lavibridge.interop.pipelines",
}

__all__ = [
    "Bridge",
    "LoraSettings",
    "__version__",
    "connect",
    "export",
    "import_released",
    "prompt_inputs",
    "read_lora_file",
    "to_diffusers",
]


def __getattr__(name: str) -> object:
    """Import a public name from its room when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lavibridge' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
