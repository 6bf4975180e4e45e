"""What a model folder of the transformers library says of itself, before anything of it is loaded."""

from pathlib import Path
from typing import Any

from lavibridge.core.errors import ModelError
from lavibridge.core.sources import read_model_json


def describe(source: str, revision: str | None) -> tuple[dict[str, Any], str]:
    """A model's config.json and the sub-folder it lies in, in a pipeline's folder its text encoder's."""
    pipeline = read_model_json(source, "model_index.json", revision)
    folder = "" if pipeline is None else "bert" if "bert" in pipeline else "text_encoder"
    description = read_model_json(source, str(Path(folder) / "config.json"), revision)
    if description is None:
        place = f" in {folder}/" if folder else ""
        raise ModelError(f"'{source}' has no config.json{place}: it is no model folder of transformers")
    return description, folder
