"""Connect a pretrained language model to a pretrained image diffusion model, train the connection, and draw.

    from lavibridge import Bridge

The names below are imported when first used, so that ``import lavibridge`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lavibridge.bridge import Bridge as Bridge
    from lavibridge.lora import LoraSettings as LoraSettings

try:
    __version__ = version("lavibridge")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"

_HOMES = {"Bridge": "lavibridge.bridge", "LoraSettings": "lavibridge.lora"}

__all__ = ["Bridge", "LoraSettings", "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name from its room when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lavibridge' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
