"""Connect a pretrained language model to a pretrained vision model, train the connection, and draw.

    from lavibridge import BridgePipeline

Each name below is imported when it is first used, so that ``import lavibridge`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lavibridge.bridge import Bridge as Bridge
    from lavibridge.evaluation.evaluate import evaluate as evaluate
    from lavibridge.generation.pipeline import BridgePipeline as BridgePipeline
    from lavibridge.interop.export import export as export
    from lavibridge.interop.lora_read import read_lora_file as read_lora_file
    from lavibridge.interop.pipeline_hook import connect as connect
    from lavibridge.interop.pipelines import prompt_inputs as prompt_inputs
    from lavibridge.interop.pipelines import to_diffusers as to_diffusers
    from lavibridge.interop.released import import_released as import_released
    from lavibridge.lora import LoraSettings as LoraSettings
    from lavibridge.recipes.recipe import load_recipe as load_recipe
    from lavibridge.training.train import train as train

try:
    __version__ = version("lavibridge")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0"

_MODULES = {
    "Bridge": "lavibridge.bridge",
    "BridgePipeline": "lavibridge.generation.pipeline",
    "LoraSettings": "lavibridge.lora",
    "connect": "lavibridge.interop.pipeline_hook",
    "evaluate": "lavibridge.evaluation.evaluate",
    "export": "lavibridge.interop.export",
    "import_released": "lavibridge.interop.released",
    "load_recipe": "lavibridge.recipes.recipe",
    "prompt_inputs": "lavibridge.interop.pipelines",
    "read_lora_file": "lavibridge.interop.lora_read",
    "to_diffusers": "lavibridge.interop.pipelines",
    "train": "lavibridge.training.train",
}

__all__ = [
    "Bridge",
    "BridgePipeline",
    "LoraSettings",
    "__version__",
    "connect",
    "evaluate",
    "export",
    "import_released",
    "load_recipe",
    "prompt_inputs",
    "read_lora_file",
    "to_diffusers",
    "train",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'lavibridge' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
