"""Folds LoRA files of other tools into the frozen weights of a bridge, at the scale they were trained with.

    W <- W + scale up down                        the bridge's own LoRA stays separate and trainable

Files may have any rank, and mix ranks; several files add up. The denoiser's layers go into the vision model.
The text encoder's layers are used only if the bridge's language model is that text encoder. Saved and
exported bridges contain the folded weights.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.bridge.weight_checks import require_whole_weights
from lavibridge.core.errors import ModelError
from lavibridge.core.files import file_sha256
from lavibridge.core.log import console
from lavibridge.core.low_rank import FoldedLora, Layer, fold_low_rank, low_rank_shapes, named_layers
from lavibridge.core.paths import expand_path
from lavibridge.interop import lora_names
from lavibridge.interop.lora_scale import LoraScale, read_lora_scale, refuse_unknown_lora_method
from lavibridge.interop.pipeline_hook import require_diffusers_model
from lavibridge.interop.weight_files import read_named_weights
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

_SIDES = {
    r"(lora_A|lora_down|lora\.down|lora_linear_layer\.down|down)(\.\w+)?\.weight": "down",
    r"(lora_B|lora_up|lora\.up|lora_linear_layer\.up|up)(\.\w+)?\.weight": "up",
    r"lora_mid\.weight": "mid",
    r"(lora\.)?alpha": "alpha",
}
"""The rest of a key after its layer's name -> its role; \\w+ is PEFT's name of the adapter."""
_FILES = (
    lora.PEFT_WEIGHTS,
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
)
"""The files that a folder may hold."""
_TEXT = re.compile(r"(base_model\.model\.)?(lora_te\d?_|text_encoder|clip_[lg]|t5xxl)")


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """The keys of a file that were used, and those that were not."""

    matched: tuple[str, ...]
    """Keys that were used."""
    unmatched: tuple[str, ...]
    """Keys for which there is no layer."""


@dataclass(frozen=True, kw_only=True)
class _TargetModel:
    """A network that a file may contain LoRA for."""

    model: LanguageModel | VisionModel
    component: str
    """Its name in Diffusers' pipelines."""
    known: Mapping[str, str]
    prefixes: tuple[str, ...]


def read_lora_file(bridge: Bridge, path: str | PathLike[str]) -> LoraReport:
    """Fold a LoRA file of any tool, or a PEFT folder, into the bridge's frozen models.

    Prints how many keys name no layer of the bridge, with examples. Raises ModelError, and changes nothing,
    if no key matches, a shape does not fit, half of a pair is missing, the scale is unknown, the file needs
    more than plain LoRA, or the bridge already contains it.
    """
    file = _file(expand_path(path))
    require_whole_weights(bridge, "read a LoRA file into")
    found = read_named_weights(file)
    parts = _parts(bridge)
    digest = file_sha256(file)
    if any(digest == each.sha256 for part in parts for each in part.model.folded):
        raise ModelError(f"this bridge already contains {file}: reading it again would double its effect")
    by_part: list[dict[str, dict[str, str]]] = [{} for _ in parts]
    unmatched = [key for key in found if not _sorted_in(key, parts, by_part, file)]
    if not any(by_part):
        example = next(iter(parts[0].known.values()), "none")
        raise ModelError(
            f"{file}: none of its {len(found)} keys, such as {', '.join(sorted(found)[:2])}, names a layer "
            f"of '{bridge.vision.config.source}', such as {example}: choose a file that was made for this "
            "model, with the names of Diffusers, PEFT, kohya's scripts or the published U-Nets"
        )
    is_peft = any(key.startswith(lora.PEFT_PREFIX) for key in found)
    pairs = [
        _pairs(found, placed, part, read_lora_scale(file, part.component, is_peft)) if placed else {}
        for part, placed in zip(parts, by_part, strict=True)
    ]
    for part, each in zip(parts, pairs, strict=True):
        if each:
            fold_low_rank(part.model.backbone, each)
            part.model.folded += (FoldedLora(name=file.name, sha256=digest, pairs=each),)
    bridge.origin = {**bridge.origin, f"lora {file.name}": digest}
    _tell(file, unmatched, len(found))
    used = [key for placed in by_part for sides in placed.values() for key in sides.values()]
    return LoraReport(matched=tuple(sorted(used)), unmatched=tuple(sorted(unmatched)))


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in _FILES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise ModelError(
            f"{path} holds {len(found)} files that may be LoRA, such as {', '.join(_FILES[::2])}: give the "
            "path of one file"
        )
    return found[0]


def _parts(bridge: Bridge) -> list[_TargetModel]:
    """The denoiser, and the language model if it is the image model's own text encoder."""
    vision, language = require_diffusers_model(bridge), bridge.language
    known = lora_names.denoiser_lora_names(vision.backbone)
    found = [
        _TargetModel(
            model=vision,
            component=vision.denoiser_folder,
            known=known,
            prefixes=lora_names.DENOISER_PREFIXES,
        )
    ]
    if (language.config.source, language.config.revision) == (vision.config.source, vision.config.revision):
        known = lora_names.text_encoder_lora_names(language.backbone)
        found.append(
            _TargetModel(
                model=language,
                component="text_encoder",
                known=known,
                prefixes=lora_names.TEXT_ENCODER_PREFIXES,
            )
        )
    return found


def _sorted_in(
    key: str, parts: list[_TargetModel], by_part: list[dict[str, dict[str, str]]], file: Path
) -> bool:
    """Assign a key to its layer; returns False if no layer matches."""
    for part, placed in zip(parts, by_part, strict=True):
        found = lora_names.find_lora_layer(key, part.known, part.prefixes)
        if found is None:
            continue
        layer, rest = found
        side = next((side for form, side in _SIDES.items() if re.fullmatch(form, rest)), None)
        if side is None:
            refuse_unknown_lora_method(file, layer, rest)
        other = placed.setdefault(layer, {}).setdefault(str(side), key)
        if other != key:
            raise ModelError(f"{file} holds two weights for one layer, {other} and {key}: remove one")
        return True
    return False


def _pairs(
    found: Mapping[str, Tensor],
    placed: Mapping[str, Mapping[str, str]],
    part: _TargetModel,
    file_scale: LoraScale,
) -> dict[str, tuple[Tensor, Tensor]]:
    own = named_layers(part.model.backbone)
    return {name: _pair(found, sides, name, own[name], file_scale) for name, sides in placed.items()}


def _pair(
    found: Mapping[str, Tensor], sides: Mapping[str, str], name: str, layer: Layer, file_scale: LoraScale
) -> tuple[Tensor, Tensor]:
    """Return (up, down) in float32, with the scale multiplied into up."""
    if not {"up", "down"} <= sides.keys():
        raise ModelError(
            f"{file_scale.path}: {', '.join(sides.values())} has no partner; LoRA needs a pair of up and down"
        )
    up, down = found[sides["up"]].float(), found[sides["down"]].float()
    rank = len(down)
    if "mid" in sides:
        down = _through(found[sides["mid"]].float(), down)
    shapes = low_rank_shapes(layer, rank)
    if not all(_fits(tensor, shape) for tensor, shape in zip((up, down), shapes, strict=True)):
        raise ModelError(
            f"{file_scale.path} does not fit '{name}': up and down have shapes {tuple(up.shape)} and "
            f"{tuple(down.shape)}, this model needs {shapes[0]} and {shapes[1]}"
        )
    if "alpha" in sides:
        alpha = found[sides["alpha"]]
        if alpha.numel() != 1:
            raise ModelError(
                f"{file_scale.path}: {sides['alpha']} must be one number, found shape {tuple(alpha.shape)}"
            )
        scale = float(alpha) / rank
    else:
        scale = file_scale.scale(name, layer, rank)
    up = up * scale
    if not bool(up.isfinite().all() and down.isfinite().all()):
        raise ModelError(
            f"{file_scale.path} holds NaN or infinite values for '{name}': use another copy of the file"
        )
    return up.reshape(shapes[0]).contiguous(), down.reshape(shapes[1]).contiguous()


def _through(mid: Tensor, down: Tensor) -> Tensor:
    """Multiply the two factors of a convolution's down (Tucker); return ``mid`` if they do not match."""
    if mid.ndim != 4 or down.shape[2:] != (1, 1) or mid.shape[1] != len(down):
        return mid
    return torch.einsum("mnhw,ni->mihw", mid, down[:, :, 0, 0])


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the shapes match up to trailing sides of 1: files may store a 1 x 1 convolution as linear."""
    longer, shorter = sorted((tuple(tensor.shape), shape), key=len, reverse=True)
    return longer[: len(shorter)] == shorter and set(longer[len(shorter) :]) <= {1}


def _tell(file: Path, unmatched: list[str], count: int) -> None:
    if not unmatched:
        return
    kinds = Counter("of a text encoder" if _TEXT.match(key) else "of other layers" for key in unmatched)
    counted = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    console.print(
        f"note: the bridge does not use {len(unmatched)} of {count} keys of {file} ({counted}): "
        f"{', '.join(sorted(unmatched)[:3])}{', ...' if len(unmatched) > 3 else ''}",
    )
