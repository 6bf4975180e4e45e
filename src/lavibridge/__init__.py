"""Connect any pretrained language model to any pretrained image diffusion model.

    prompts --language--> TextFeatures --connector--> Conditioning --vision--> prediction

`from lavibridge import Bridge` loads torch only when `Bridge` is asked for, so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavibridge.bridge import Bridge as Bridge
    from lavibridge.core.errors import LaviError as LaviError

__version__ = "0.1.0"
__all__ = ["Bridge", "LaviError", "__version__"]

_HOME = {"Bridge": "lavibridge.bridge", "LaviError": "lavibridge.core.errors"}


def __getattr__(name: str) -> Any:
    """Import the few public names from where they live, when first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'lavibridge' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
