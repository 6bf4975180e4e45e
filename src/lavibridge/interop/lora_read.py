"""LoRA files of other tools into a bridge: at their true strength, folded into the frozen weights.

    W <- W + scale up down                        the bridge's own LoRA stays beside it, and is trained or not

Any rank is read, one or several in a file, and one file after the other. The vision model takes the
denoiser's layers; those of the image model's own text encoder are taken where the bridge reads with it.
Saved bridges hold what was folded in, and exports too.
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
from lavibridge.interop.lora_scale import LoraScale, read_lora_scale, refuse_unknown_method
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
"""How a key goes on after its layer's name, and what it is; \\w+ is the name that PEFT gave the adapter."""
_FILES = (
    lora.PEFT_WEIGHTS,
    "adapter_model.bin",
    "pytorch_lora_weights.safetensors",
    "pytorch_lora_weights.bin",
)
"""What a folder is read from."""
_TEXT = re.compile(r"(base_model\.model\.)?(lora_te\d?_|text_encoder|clip_[lg]|t5xxl)")


@dataclass(frozen=True, kw_only=True)
class LoraReport:
    """What became of a file's keys."""

    matched: tuple[str, ...]
    """Keys that were used."""
    unmatched: tuple[str, ...]
    """Keys for which there is no layer."""


@dataclass(frozen=True, kw_only=True)
class _TargetModel:
    """A network that a file may be for."""

    model: LanguageModel | VisionModel
    component: str
    """What Diffusers' pipelines call it."""
    known: Mapping[str, str]
    prefixes: tuple[str, ...]


def read_lora_file(bridge: Bridge, path: str | PathLike[str]) -> LoraReport:
    """Add the LoRA of a file, or of PEFT's folder, to the bridge's frozen models, whichever tool wrote it.

    What is not used, as the bridge has no such layer, is counted and named. Raises ModelError, with nothing
    changed, where no key matches, a shape does not fit, half of a pair is missing, the strength cannot be
    known, the file is more than LoRA, or was read before.
    """
    file = _file(expand_path(path))
    require_whole_weights(bridge, "read a LoRA file into")
    found = read_named_weights(file)
    parts = _parts(bridge)
    digest = file_sha256(file)
    if any(digest == each.sha256 for part in parts for each in part.model.folded):
        raise ModelError(f"{file} has been read into this bridge already: a second time would double it")
    by_part: list[dict[str, dict[str, str]]] = [{} for _ in parts]
    unmatched = [key for key in found if not _sorted_in(key, parts, by_part, file)]
    if not any(by_part):
        example = next(iter(parts[0].known.values()), "none")
        raise ModelError(
            f"{file}: none of its {len(found)} keys, such as {', '.join(sorted(found)[:2])}, names a layer "
            f"of '{bridge.vision.config.source}', such as {example}: "
            "was it made for another model, or named as none of the tools does that are read?"
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
            f"{path} holds {len(found)} files that may be LoRA (one of {', '.join(_FILES[::2])}): name one"
        )
    return found[0]


def _parts(bridge: Bridge) -> list[_TargetModel]:
    """The denoiser, and the language model where it is the image model's own text encoder."""
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
    """Put a key where it belongs; False where there is no such layer."""
    for part, placed in zip(parts, by_part, strict=True):
        found = lora_names.find_lora_layer(key, part.known, part.prefixes)
        if found is None:
            continue
        layer, rest = found
        side = next((side for form, side in _SIDES.items() if re.fullmatch(form, rest)), None)
        if side is None:
            refuse_unknown_method(file, layer, rest)
        other = placed.setdefault(layer, {}).setdefault(str(side), key)
        if other != key:
            raise ModelError(f"{file} holds two weights for one place: {other} and {key}; take one out")
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
    """(up, down) in float32, the scale in up."""
    if not {"up", "down"} <= sides.keys():
        raise ModelError(
            f"{file_scale.path}: {', '.join(sides.values())} stands alone, a pair of up and down is needed"
        )
    up, down = found[sides["up"]].float(), found[sides["down"]].float()
    rank = len(down)
    if "mid" in sides:
        down = _through(found[sides["mid"]].float(), down)
    shapes = low_rank_shapes(layer, rank)
    if not all(_fits(tensor, shape) for tensor, shape in zip((up, down), shapes, strict=True)):
        raise ModelError(
            f"{file_scale.path} does not fit '{name}': up and down are {tuple(up.shape)} and "
            f"{tuple(down.shape)}, "
            f"they have to be {shapes[0]} and {shapes[1]}"
        )
    if "alpha" in sides:
        alpha = found[sides["alpha"]]
        if alpha.numel() != 1:
            raise ModelError(
                f"{file_scale.path}: {sides['alpha']} should be one number, found {tuple(alpha.shape)}"
            )
        scale = float(alpha) / rank
    else:
        scale = file_scale.scale(name, layer, rank)
    up = up * scale
    if not bool(up.isfinite().all() and down.isfinite().all()):
        raise ModelError(
            f"{file_scale.path} holds NaN or infinite values for '{name}': take another copy of it"
        )
    return up.reshape(shapes[0]).contiguous(), down.reshape(shapes[1]).contiguous()


def _through(mid: Tensor, down: Tensor) -> Tensor:
    """The one kernel of a convolution's down that was split in two (Tucker); else what fits no layer."""
    if mid.ndim != 4 or down.shape[2:] != (1, 1) or mid.shape[1] != len(down):
        return mid
    return torch.einsum("mnhw,ni->mihw", mid, down[:, :, 0, 0])


def _fits(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether it has the shape, but for sides of 1, as a convolution of 1 x 1 may be written as a linear."""
    longer, shorter = sorted((tuple(tensor.shape), shape), key=len, reverse=True)
    return longer[: len(shorter)] == shorter and set(longer[len(shorter) :]) <= {1}


def _tell(file: Path, unmatched: list[str], count: int) -> None:
    if not unmatched:
        return
    kinds = Counter("of a text encoder" if _TEXT.match(key) else "of no layer here" for key in unmatched)
    counted = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    console.print(
        f"note: {len(unmatched)} of {count} keys of {file} are not used ({counted}): "
        f"{', '.join(sorted(unmatched)[:3])}{', ...' if len(unmatched) > 3 else ''}",
    )
