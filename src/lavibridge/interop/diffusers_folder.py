"""Writes a folder that Diffusers opens by itself: the original's parts, with LoRA merged into the denoiser.

    model_index.json, scheduler/, vae/, text_encoder/, ...    as in the vision model's own folder
    unet/ or transformer/                                     W + up down
    bridge/                                                   the bridge, for prompts
    README.md                                                 how to use both together

The folder keeps the original's text encoder, but the denoiser no longer fits it well: use the bridge to
encode prompts.
"""

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import diffusers

from lavibridge.bridge import Bridge
from lavibridge.bridge.weight_checks import require_full_weights
from lavibridge.core.errors import ModelError
from lavibridge.core.files import write_atomic, write_json
from lavibridge.core.hub import is_local_only
from lavibridge.core.paths import is_below, linked_root, path_below
from lavibridge.core.sources import RANDOM, find_single_file, read_model_json, resolve_source
from lavibridge.core.tensors import save_tensors
from lavibridge.interop.merged_weights import merged_weights
from lavibridge.interop.pipeline_hook import require_diffusers_model

_KEPT = (".json", ".txt", ".model", ".safetensors", ".jinja")
"""Suffixes of files to copy; pickles are not copied."""
_PICKLES = (".bin", ".pt", ".ckpt")
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PART = re.compile(r"[A-Za-z0-9]\w*")
"""The name of a part: a plain folder."""
_README = """# {name}: a Diffusers pipeline with a LaVi-Bridge denoiser

`DiffusionPipeline.from_pretrained` opens this folder without running code from it. The bridge's LoRA is
merged into `{denoiser}/`. The text encoder is the original one, but **this denoiser was trained with prompt
embeddings from the bridge**. The bridge is in `bridge/`, and the package `lavibridge` loads it:

```python
import torch
from diffusers import DiffusionPipeline
from lavibridge import Bridge, connect, prompt_inputs

pipe = DiffusionPipeline.from_pretrained("{folder}").to(torch.float32)
bridge = Bridge.from_pretrained("{folder}/bridge")
connect(pipe, bridge)
image = pipe(**prompt_inputs(bridge, ["a red circle"])).images[0]
```

`bridge/` refers to the language model `{language}` and the vision model `{vision}`; both must be available.
"""


def write_diffusers_folder(bridge: Bridge, folder: Path) -> None:
    """Write the folder. Raises ModelError if the vision model is a toy or its folder is incomplete."""
    vision = require_diffusers_model(bridge)
    if bridge.connector.per_block:
        raise ModelError(
            "a per-block connector adds attention to the denoiser's blocks, which a plain pipeline does not "
            "support: use save_pretrained and to_diffusers"
        )
    if vision.config.source == RANDOM:
        raise ModelError(
            "a random toy has no folder with a text encoder: export a bridge between pretrained models"
        )
    require_full_weights(vision, "export")
    root = _local(vision.config.source, vision.config.revision)
    index = read_model_json(str(root), "model_index.json")
    if index is None:
        raise ModelError(
            f"'{vision.config.source}' has no model_index.json: choose the folder of a whole pipeline"
        )
    parts = _parts(index, root, vision.denoiser_folder)
    for name in parts:
        _check_links(path_below(root, name), root)
        shutil.copytree(root / name, folder / name, ignore=_left_behind)
    index |= {name: [None, None] for name in index if _is_part(index[name]) and name not in parts}
    denoiser = folder / vision.denoiser_folder
    vision.backbone.save_config(denoiser)
    save_tensors(merged_weights(vision.backbone, bridge.is_merged), denoiser / _WEIGHTS)
    index[vision.denoiser_folder] = ["diffusers", type(vision.backbone).__name__]
    write_json(folder / "model_index.json", index)
    bridge.save_pretrained(folder / "bridge")
    names = {"name": folder.name, "folder": folder, "denoiser": vision.denoiser_folder}
    sources = {"language": bridge.language.config.source, "vision": vision.config.source}
    write_atomic(folder / "README.md", _README.format(**names, **sources))


def _local(source: str, revision: str | None) -> Path:
    """The model's local folder; downloads a model of the hub, without pickles."""
    root = resolve_source(source)
    if find_single_file(source, revision) is not None:
        raise ModelError(
            f"'{source}' is a single file, and the export copies a folder: write one with Diffusers' "
            "from_single_file and save_pretrained, and name it as the bridge's vision model"
        )
    if Path(root).is_dir():
        return Path(root)
    from huggingface_hub import snapshot_download

    patterns = [f"*{end}" for end in _KEPT]
    local = is_local_only(root)
    return Path(snapshot_download(root, revision=revision, allow_patterns=patterns, local_files_only=local))


def _parts(index: dict[str, Any], root: Path, denoiser: str) -> list[str]:
    """The parts to copy: all but the denoiser and missing optional parts."""
    pipeline = _pipeline_class(index)
    if pipeline is None:
        raise ModelError(
            f"{root} needs the pipeline class '{index.get('_class_name')}', which Diffusers does not have: "
            "choose another model"
        )
    if "prompt_embeds" not in inspect.signature(pipeline.__call__).parameters:
        raise ModelError(
            f"{root} is a {pipeline.__name__}, which does not accept prompt embeddings: use "
            "to_diffusers(bridge)"
        )
    named = [name for name, value in index.items() if _is_part(value) and name != denoiser]
    unusual = [name for name in named if not _PART.fullmatch(name)]
    if unusual:
        raise ModelError(f"{root}/model_index.json names the part {unusual[0]!r}, which is no folder's name")
    missing = [name for name in named if not _is_whole(root / name)]
    needed = [name for name in missing if name not in pipeline._optional_components]
    if needed:
        raise ModelError(
            f"{root} lacks {', '.join(needed)} as safetensors, which its pipeline needs: download a "
            "complete copy"
        )
    return [name for name in named if name not in missing]


def _pipeline_class(index: dict[str, Any]) -> Any:
    """Return the pipeline's class; None if Diffusers has no such pipeline."""
    found = getattr(diffusers, str(index.get("_class_name")), None)
    return found if inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline) else None


def _check_links(part: Path, root: Path) -> None:
    """Raise ModelError for a link that leads out of the folder; the hub's cache links to its blobs."""
    whole = linked_root(root)
    outside = [path for path in part.rglob("*") if not is_below(path, whole)]
    if outside:
        raise ModelError(f"{outside[0]} is a link out of {whole}, which is not followed: copy the file there")


def _is_part(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] is not None


def _is_whole(part: Path) -> bool:
    """Whether a part exists, and not only as pickles."""
    ends = {path.suffix for path in part.iterdir()} if part.is_dir() else set()
    return bool(ends) and (".safetensors" in ends or not ends.intersection(_PICKLES))


def _left_behind(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder) / name).is_dir() and not name.endswith(_KEPT)]
