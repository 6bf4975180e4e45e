"""Uploads and downloads bridges: a repository on the hub is a saved bridge with a model card.

OWNER/NAME    bridge.json, connector/, language_lora/, vision_lora/, vision_folded/, samples.png, README.md
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.core.files import read_json_object, write_atomic
from lavibridge.core.hub import is_local_only
from lavibridge.core.sources import is_hub_id

_FILES = ("bridge.json", "connector/*", "*_lora/*", "*_folded/*")
_CARD = """---
library_name: lavibridge
pipeline_tag: text-to-image
{license}base_model:
{base_models}
---

# {repo_id}
{samples}
A bridge between the language model `{language}` and the vision model `{vision}`, both frozen.

```python
from lavibridge import BridgePipeline

pipe = BridgePipeline.from_pretrained("{repo_id}")
image = pipe("a red circle", seed=0).images[0]
```

## Licences

| part | licence |
| --- | --- |
| this bridge | {own_license} |
| `{language}` | FILL IN |
| `{vision}` | FILL IN |
{folded}
All of them apply to a bridge and to its images.
"""
SAMPLES = "samples.png"
"""The sample images of an upload."""


def download_bridge_from_hub(repo_id: str, revision: str | None) -> Path:
    """Download a bridge from the hub and return its folder. Raises RunError if that fails."""
    from huggingface_hub import constants, snapshot_download

    try:
        local = is_local_only(repo_id)
        found = snapshot_download(
            repo_id, revision=revision, allow_patterns=list(_FILES), local_files_only=local
        )
    except Exception as error:  # the client lets errors of its network library through
        raise RunError(
            f"there is no folder '{repo_id}', and the hub ({constants.ENDPOINT}) has no such repository: "
            f"{_first_line(error)}"
        ) from None
    folder = Path(found)
    if not (folder / "bridge.json").is_file():
        raise RunError(f"'{repo_id}' on the hub holds no bridge.json: give the id of a saved bridge")
    return folder


def write_hub_card(folder: Path, repo_id: str, license: str | None) -> None:
    """Write the model card beside a saved bridge.

    Raises RecipeError unless ``repo_id`` is OWNER/NAME, and ModelError if a frozen model is a local folder.
    """
    if not is_hub_id(repo_id):
        raise RecipeError(f"a repository of the hub is called OWNER/NAME, found '{repo_id}'")
    stored = read_json_object(folder / "bridge.json")
    sources = {name: _public_source(name, stored[name]) for name in ("language", "vision")}
    base_models = "\n".join(f"  - {source}" for source in sources.values())
    folded = [each["name"] for files in stored["folded"].values() for each in files]
    card = _CARD.format(
        repo_id=repo_id,
        base_models=base_models,
        license="" if license is None else f"license: {license}\n",
        own_license=license or "FILL IN",
        samples=f"\n![Images of this bridge.]({SAMPLES})\n" if (folder / SAMPLES).is_file() else "",
        folded="".join(f"| the LoRA file `{name}` in it | FILL IN |\n" for name in folded),
        **sources,
    )
    write_atomic(folder / "README.md", card)


def upload_to_hub(
    folder: Path, repo_id: str, *, private: bool | None, token: str | None, message: str
) -> str:
    """Upload a folder and return the commit's URL. Raises RunError if the hub refuses the upload."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message))
    except Exception as error:  # the client lets errors of its network library through
        raise RunError(f"the hub ({api.endpoint}) refuses '{repo_id}': {_first_line(error)}") from None


def _public_source(name: str, options: Mapping[str, Any]) -> str:
    """Return the model's source. Raises ModelError if it is a local folder, which nobody else has."""
    source = str(options["source"])
    if Path(source).is_absolute():
        raise ModelError(
            f"the {name} model is the folder {source}, which exists on this machine only: compose the bridge "
            "with the model's hub id before you push it"
        )
    return source


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
