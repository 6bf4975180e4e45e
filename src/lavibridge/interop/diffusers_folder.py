"""A folder that Diffusers opens by itself: the original's parts, LoRA merged into the denoiser.

    model_index.json, scheduler/, vae/, text_encoder/, ...    as in the vision model's own folder
    unet/ or transformer/                                     W + up down
    bridge/                                                   the bridge, for prompts
    README.md                                                 how the two go together

Its text encoder is the original's, to which the denoiser no longer fits well: prompts go through the bridge.
"""

import inspect
import shutil
from pathlib import Path
from typing import Any

import diffusers

from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source, write_atomic, write_json
from lavibridge.core.sources import RANDOM, find_single_file, read_model_json
from lavibridge.core.tensors import save_tensors
from lavibridge.interop.merged_weights import merged_weights
from lavibridge.interop.pipeline_hook import require_diffusers_model

_KEPT = (".json", ".txt", ".model", ".safetensors", ".jinja")
"""Ends of files that are copied; pickles are left behind."""
_PICKLES = (".bin", ".pt", ".ckpt")
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_README = """# {name}: a Diffusers pipeline with a LaVi-Bridge denoiser

`DiffusionPipeline.from_pretrained` opens this folder, and no code of it is run. The bridge's LoRA is merged
into `{denoiser}/`. The text encoder is the original one: **the prompt embeddings that this denoiser was
trained with come from the bridge**, which lies in `bridge/` and needs the package `lavibridge`:

```python
import torch
from diffusers import DiffusionPipeline
from lavibridge import Bridge, connect, prompt_inputs

pipe = DiffusionPipeline.from_pretrained("{folder}").to(torch.float32)
bridge = Bridge.from_pretrained("{folder}/bridge")
connect(pipe, bridge)
image = pipe(**prompt_inputs(bridge, ["a red circle"])).images[0]
```

`bridge/` names the language model `{language}` and the vision model `{vision}`, which have to be there.
"""


def write_diffusers_folder(bridge: Bridge, folder: Path) -> None:
    """Write the folder; raises ModelError where the vision model is a toy, or not whole."""
    vision = require_diffusers_model(bridge)
    if bridge.connector.per_block:
        raise ModelError(
            "the connector speaks in the denoiser's blocks, which a plain pipeline does not open: use "
            "save_pretrained and to_diffusers"
        )
    if vision.config.source == RANDOM:
        raise ModelError(
            "a random toy has no folder to take the text encoder from: export a bridge of models"
        )
    root = _local(vision.config.source, vision.config.revision)
    index = read_model_json(str(root), "model_index.json")
    if index is None:
        raise ModelError(
            f"'{vision.config.source}' has no model_index.json, so it is no pipeline to begin from"
        )
    parts = _parts(index, root, vision.denoiser_folder)
    for name in parts:
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
    """The model's folder; one of the hub is downloaded, without pickles."""
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
    return Path(snapshot_download(root, revision=revision, allow_patterns=patterns))


def _parts(index: dict[str, Any], root: Path, denoiser: str) -> list[str]:
    """The pipeline's parts that are copied: all but the denoiser, and what is missing and not needed."""
    pipeline = getattr(diffusers, str(index.get("_class_name")), None)
    if pipeline is None:
        raise ModelError(f"{root} is a '{index.get('_class_name')}', which Diffusers has not: choose another")
    if "prompt_embeds" not in inspect.signature(pipeline.__call__).parameters:
        raise ModelError(
            f"{root} is a {pipeline.__name__}, which cannot be given prompt embeddings: use "
            "to_diffusers(bridge)"
        )
    named = [name for name, value in index.items() if _is_part(value) and name != denoiser]
    missing = [name for name in named if not _is_whole(root / name)]
    needed = [name for name in missing if name not in pipeline._optional_components]
    if needed:
        raise ModelError(
            f"{root} has no {', '.join(needed)} with safetensors, which its pipeline cannot do without"
        )
    return [name for name in named if name not in missing]


def _is_part(value: Any) -> bool:
    return isinstance(value, list) and value[0] is not None


def _is_whole(part: Path) -> bool:
    """Whether a part is there, and not as pickles only."""
    ends = {path.suffix for path in part.iterdir()} if part.is_dir() else set()
    return bool(ends) and (".safetensors" in ends or not ends.intersection(_PICKLES))


def _left_behind(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder) / name).is_dir() and not name.endswith(_KEPT)]
