"""Folds LoRA files of other tools into frozen weights, at the scale they were trained with.

    W <- W + strength D                           the bridge's own LoRA stays separate and trainable

``vision.lora_files`` adds files to the denoiser before a bridge is built on it; `read_lora_file` adds one to
a bridge that exists. The files may use LoRA, LoHa, LoKr and DoRA (core/weight_changes.py), have any rank and
mix ranks. Saved and exported bridges contain the folded weights.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import lora_names
from lavibridge.bridge.lora_layers import layer_factors, lora_role
from lavibridge.bridge.lora_scale import ADAPTER_CONFIG, read_lora_scale
from lavibridge.core.errors import ModelError
from lavibridge.core.files import file_sha256
from lavibridge.core.log import console
from lavibridge.core.low_rank import named_layers
from lavibridge.core.weight_changes import Factors, FoldedLora, fold_lora
from lavibridge.core.weight_files import read_named_weights
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.lora_conversion import convert_lora_tensors

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
class LoraTarget:
    """A network that a file may contain LoRA for."""

    model: LanguageModel | VisionModel
    component: str
    """Its name in Diffusers' pipelines."""
    known: Mapping[str, str]
    prefixes: tuple[str, ...]


def add_lora_files(vision: VisionModel) -> None:
    """Fold the files of ``vision.lora_files`` into a new vision model, in order.

    Prints which keys name no layer. Raises ModelError as `fold_lora_file` does.
    """
    for each in vision.config.lora_files:
        fold_lora_file([denoiser_target(vision)], each.path, each.strength)


def denoiser_target(vision: VisionModel) -> LoraTarget:
    """Describe the denoiser. Raises ModelError if it is no Diffusers model or its weights are quantised."""
    from lavibridge.vision.hf import DiffusersModel  # here, as it imports Diffusers

    if not isinstance(vision, DiffusersModel):
        raise ModelError(f"'{vision.config.source}' is not a Diffusers model, so it takes no LoRA files")
    if vision.placement.quantize is not None:
        raise ModelError(
            f"the denoiser of '{vision.config.source}' is quantised ({vision.placement.quantize}), and LoRA "
            "files change whole weights: load it without `quantize`, or leave the LoRA files out"
        )
    return LoraTarget(
        model=vision,
        component=vision.denoiser_folder,
        known=lora_names.denoiser_lora_names(vision.backbone),
        prefixes=lora_names.DENOISER_PREFIXES,
    )


def text_encoder_target(language: LanguageModel) -> LoraTarget:
    """Describe a language model that is the image model's own text encoder."""
    return LoraTarget(
        model=language,
        component="text_encoder",
        known=lora_names.text_encoder_lora_names(language.backbone),
        prefixes=lora_names.TEXT_ENCODER_PREFIXES,
    )


def fold_lora_file(
    targets: Sequence[LoraTarget], path: Path, strength: float
) -> tuple[FoldedLora, LoraReport]:
    """Fold a file of any tool, or a PEFT folder, into networks, the denoiser first.

    Prints how many keys name no layer, with examples. Raises ModelError, and changes nothing, if no key
    matches, a shape does not fit, a tensor is missing, the scale is unknown, the method is none of LoRA,
    LoHa, LoKr and DoRA, or a network already contains the file.
    """
    file = lora_file_at(path)
    digest = lora_file_hash(file)
    if any(digest == each.sha256 for target in targets for each in target.model.folded):
        raise ModelError(f"this bridge already contains {file}: reading it again would double its effect")
    found = read_named_weights(file)
    placed, unmatched = _placed(found, targets, file)
    if not placed[0] and unmatched:
        converted = convert_lora_tensors(targets[0].model, found)
        if converted is not None:
            found = converted
            placed, unmatched = _placed(found, targets, file)
    if not any(placed):
        _refuse_foreign(file, sorted(found), targets[0])
    is_peft = any(key.startswith(lora.PEFT_PREFIX) for key in found)
    changes = [
        _changes(found, layers, target, file, is_peft) if layers else {}
        for target, layers in zip(targets, placed, strict=True)
    ]
    made = [FoldedLora(name=file.name, sha256=digest, strength=strength, changes=each) for each in changes]
    for target, folded in zip(targets, made, strict=True):
        if folded.changes:
            fold_lora(target.model.backbone, folded)
            target.model.folded += (folded,)
    _print_unmatched(file, unmatched, len(found))
    used = [key for layers in placed for roles in layers.values() for key in roles.values()]
    return made[0], LoraReport(matched=tuple(sorted(used)), unmatched=tuple(sorted(unmatched)))


def lora_file_at(path: Path) -> Path:
    """Return the file at a path or in a folder. Raises ModelError if there is none, or several."""
    if not path.is_dir():
        if not path.is_file():
            raise ModelError(f"there is no LoRA file {path}")
        return path
    found = [path / name for name in _FILES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        raise ModelError(
            f"{path} holds {len(found)} files that may be LoRA, such as {', '.join(_FILES[::2])}: give the "
            "path of one file"
        )
    return found[0]


def lora_file_hash(file: Path) -> str:
    """Return the SHA-256 of a LoRA file, and of PEFT's settings beside it, which hold its scale."""
    own, beside = file_sha256(file), file.parent / ADAPTER_CONFIG
    if file.name not in _FILES[:2] or not beside.is_file():
        return own
    return hashlib.sha256(f"{own} {file_sha256(beside)}".encode()).hexdigest()


def _placed(
    found: Mapping[str, Tensor], targets: Sequence[LoraTarget], file: Path
) -> tuple[list[dict[str, dict[str, str]]], list[str]]:
    """Assign keys to layers: for each target, layer -> role -> key; and the keys that name no layer."""
    placed: list[dict[str, dict[str, str]]] = [{} for _ in targets]
    unmatched: list[str] = []
    for key in found:
        for target, layers in zip(targets, placed, strict=True):
            split = lora_names.find_lora_layer(key, target.known, target.prefixes)
            if split is None:
                continue
            layer, rest = split
            other = layers.setdefault(layer, {}).setdefault(lora_role(file, layer, rest), key)
            if other != key:
                raise ModelError(f"{file} holds two weights for one layer, {other} and {key}: remove one")
            break
        else:
            unmatched.append(key)
    return placed, unmatched


def _changes(
    found: Mapping[str, Tensor],
    layers: Mapping[str, Mapping[str, str]],
    target: LoraTarget,
    file: Path,
    is_peft: bool,
) -> dict[str, Factors]:
    own = named_layers(target.model.backbone)
    scale = read_lora_scale(file, target.component, is_peft)
    return {
        name: layer_factors({role: found[key] for role, key in roles.items()}, name, own[name], scale)
        for name, roles in layers.items()
    }


def _refuse_foreign(file: Path, keys: list[str], target: LoraTarget) -> None:
    example = next(iter(target.known.values()), "none")
    raise ModelError(
        f"{file}: none of its {len(keys)} keys, such as {', '.join(keys[:2])}, names a layer of "
        f"'{target.model.config.source}', such as {example}: choose a file that was made for this model, "
        "with the names of Diffusers, PEFT, kohya's scripts, ComfyUI or the published U-Nets"
    )


def _print_unmatched(file: Path, unmatched: list[str], count: int) -> None:
    if not unmatched:
        return
    kinds = Counter("of a text encoder" if _TEXT.match(key) else "of other layers" for key in unmatched)
    counted = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    console.print(
        f"note: the bridge does not use {len(unmatched)} of {count} keys of {file} ({counted}): "
        f"{', '.join(sorted(unmatched)[:3])}{', ...' if len(unmatched) > 3 else ''}",
    )
