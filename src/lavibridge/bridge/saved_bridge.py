"""Saves and loads a bridge: its trained weights, and bridge.json, which names the frozen models.

    bridge.json        kinds, options, and the SHA-256 of every other file; written last
    connector/         config.json, model.safetensors
    language_lora/     adapter_config.json, adapter_model.safetensors, in PEFT's layout
    vision_lora/       the same
    vision_folded/0/   each LoRA file in the frozen weights; also language_folded/. In PEFT's layout if it is
                       plain LoRA, otherwise factors.safetensors (core/weight_changes.py)

A run folder holds such folders as ``checkpoints/step-N/bridge`` and, with averaged weights,
``checkpoints/step-N/ema``. A checkpoint is complete once it has a manifest.json.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from lavibridge import __version__, lora
from lavibridge.bridge.hub import SAMPLES, download_bridge_from_hub, write_hub_card
from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RunError
from lavibridge.core.files import file_sha256, read_json, write_json
from lavibridge.core.paths import expand_path
from lavibridge.core.sources import is_hub_id
from lavibridge.core.tensors import check_tensors_finite, save_tensors
from lavibridge.core.weight_changes import DOWN, UP, FoldedLora, fold_lora
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

_FORMAT = 3
"""The format of bridge.json; unreleased versions wrote the formats 1 and 2."""
_DESCRIPTION = "bridge.json"
CHECKPOINT_MANIFEST = "manifest.json"
"""Written last into a checkpoint."""
_CONNECTOR_WEIGHTS = "connector/model.safetensors"
_FACTORS = "factors.safetensors"
_PARTS = ("language", "vision", "connector", "language_lora", "vision_lora")


@dataclass(frozen=True, kw_only=True)
class SavedBridge:
    """The content of bridge.json: the arguments of ``Bridge.compose``, and the folder of the weights."""

    folder: Path
    sha256: str
    """The SHA-256 of bridge.json, which contains those of all other files."""
    language: Mapping[str, Any]
    vision: Mapping[str, Any]
    connector: Mapping[str, Any]
    language_lora: Mapping[str, Any] | None
    vision_lora: Mapping[str, Any] | None
    distilled_guidance_scale: float | None
    folded: Mapping[str, Sequence[Mapping[str, Any]]]
    """Name, SHA-256 and strength of the LoRA files in the frozen weights, by model."""


def write_saved_bridge(
    folder: Path,
    language: LanguageModel,
    connector: Connector,
    vision: VisionModel,
    distilled_guidance_scale: float | None,
) -> None:
    """Write a bridge's description and its trained weights into ``folder``.

    Raises NotFiniteError for weights that are not finite, and RunError if ``folder`` is a file.
    """
    for model, name in ((language, "language model"), (vision, "vision model")):
        check_tensors_finite(lora.lora_parameters(model.backbone), f"the LoRA of the {name}")
    check_tensors_finite(connector.state_dict(), "the connector")
    named = {"language": _named("language", language), "vision": _named("vision", vision)}
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, but the output is a folder: name another")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _DESCRIPTION).unlink(
        missing_ok=True
    )  # written last, so that an interrupted write leaves no bridge
    connector_options = {"kind": registry.kind_of("connectors", connector), **connector.config.model_dump()}
    write_json(folder / "connector" / "config.json", connector_options)
    save_tensors(connector.state_dict(), folder / _CONNECTOR_WEIGHTS)
    files = ["connector/config.json", _CONNECTOR_WEIGHTS]
    description: dict[str, Any] = {
        "format": _FORMAT,
        "lavibridge": __version__,
        **named,
        "connector": connector_options,
        "distilled_guidance_scale": distilled_guidance_scale,
    }
    for name, model in (("language_lora", language), ("vision_lora", vision)):
        settings = lora.lora_settings_of(model.backbone)
        description[name] = None if settings is None else settings.model_dump()
        if settings is not None:
            lora.save_lora(model.backbone, folder / name, model.config.source)
            files += [f"{name}/adapter_config.json", f"{name}/{lora.PEFT_WEIGHTS}"]
    folded: dict[str, list[dict[str, Any]]] = {}
    for package, model in (("language", language), ("vision", vision)):
        for index, each in enumerate(model.folded):
            place = f"{package}_folded/{index}"
            written = _write_folded(each, folder / place, model.config.source)
            files += [f"{place}/{name}" for name in written]
            about = {"name": each.name, "sha256": each.sha256, "strength": each.strength}
            folded.setdefault(package, []).append(about)
    description["folded"] = folded
    description["files"] = {name: file_sha256(folder / name) for name in files}
    write_json(folder / _DESCRIPTION, description)


def read_saved_bridge(folder: Path) -> SavedBridge:
    """Read the description of a saved bridge, of a checkpoint, or of a run folder's newest checkpoint.

    Raises RunError if there is none, or if a file is missing or has changed.
    """
    found = find_saved_bridge(folder)
    description = read_json(found / _DESCRIPTION)
    _check(description, found / _DESCRIPTION)
    for name, expected in description["files"].items():
        if not (found / name).is_file():
            raise RunError(f"{found / name} is missing, so the saved bridge is incomplete: take another copy")
        if file_sha256(found / name) != expected:
            raise RunError(
                f"{found / name} has changed since it was saved (its SHA-256 differs): take another copy"
            )
    return SavedBridge(
        folder=found,
        sha256=file_sha256(found / _DESCRIPTION),
        distilled_guidance_scale=description["distilled_guidance_scale"],
        folded=description["folded"],
        **{part: description[part] for part in _PARTS},
    )


def load_saved_weights(
    stored: SavedBridge, language: LanguageModel, connector: Connector, vision: VisionModel
) -> None:
    """Load the saved weights into the parts of a composed bridge. Raises ModelError if they do not fit.

    LoRA files that a model contains already, because its recipe names them, are not added again.
    """
    weights = load_file(stored.folder / _CONNECTOR_WEIGHTS)
    check_tensors_finite(weights, f"the connector in {stored.folder}")
    try:
        connector.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"the saved connector does not fit between '{language.config.source}' and "
            f"'{vision.config.source}': check whether these models have changed ({error})"
        ) from error
    for package, model in (("language", language), ("vision", vision)):
        present = {each.identity for each in model.folded}
        for index, about in enumerate(stored.folded.get(package, ())):
            folded = _read_folded(stored.folder / f"{package}_folded/{index}", about)
            if folded.identity not in present:
                fold_lora(model.backbone, folded)
                model.folded += (folded,)
    if stored.language_lora is not None:
        lora.load_lora(language.backbone, stored.folder / "language_lora", "language model")
    if stored.vision_lora is not None:
        lora.load_lora(vision.backbone, stored.folder / "vision_lora", "vision model")


def locate_saved_bridge(source: str | PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a saved bridge, a checkpoint, a run's newest checkpoint, or a hub download.

    Raises RunError if there is none.
    """
    folder = expand_path(source)
    return (
        download_bridge_from_hub(str(source), revision)
        if not folder.exists() and is_hub_id(source)
        else find_saved_bridge(folder)
    )


def find_saved_bridge(folder: Path) -> Path:
    """Return the folder with bridge.json in or below ``folder``. Raises RunError if there is none."""
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    for place in (folder, *reversed(saved_checkpoints(folder))):
        for inner in (place, place / "ema", place / "bridge"):
            if (inner / _DESCRIPTION).is_file():
                return inner
    raise RunError(
        f"{folder} holds neither {_DESCRIPTION} nor a complete checkpoint: give a run folder or a saved "
        "bridge"
    )


def saved_checkpoints(run: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first; ignores other names such as `step-9.bak`."""
    found = [path.parent for path in run.glob(f"checkpoints/step-*/{CHECKPOINT_MANIFEST}")]
    named = [path for path in found if re.fullmatch(r"step-[0-9]+", path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")))


def prepare_upload(run: Path, folder: Path, repo_id: str, license: str | None) -> dict[str, int]:
    """Copy the saved bridge of a run, its newest sample images and a model card into ``folder``.

    Returns the size in bytes of each file. Raises RunError if there is no complete bridge, and errors as
    `write_hub_card` does.
    """
    saved = read_saved_bridge(expand_path(run)).folder
    names = ["bridge.json", *read_json(saved / _DESCRIPTION)["files"]]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(saved / name, folder / name)
    sheets = sorted(
        expand_path(run).glob("samples/step-*.png"), key=lambda path: int(path.stem.removeprefix("step-"))
    )
    if sheets:
        shutil.copyfile(sheets[-1], folder / SAMPLES)
    write_hub_card(folder, repo_id, license)
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def saved_bridge_hash(folder: Path) -> str | None:
    """Return the SHA-256 that identifies the bridge in or below ``folder``, or None if there is none."""
    try:
        return file_sha256(find_saved_bridge(folder) / _DESCRIPTION)
    except RunError:
        return None


def holds_saved_bridge(folder: Path) -> bool:
    """Whether ``folder`` holds a bridge or a run, even one without a checkpoint yet."""
    return any(
        (folder / name).exists() for name in (_DESCRIPTION, "checkpoints", "recipe.yaml", CHECKPOINT_MANIFEST)
    )


def _check(description: Any, path: Path) -> None:
    """Raise RunError if bridge.json has another format or lacks a field."""
    known = description if isinstance(description, dict) else {}
    wrong = [] if "format" in known else ["format"]
    if not wrong and known["format"] != _FORMAT:
        writer = f"lavibridge {known['lavibridge']}" if "lavibridge" in known else "an earlier version"
        raise RunError(
            f"{path} has format {known['format']!r}, written by {writer}, but this version reads format "
            f"{_FORMAT}: load it with the version that wrote it, or train again"
        )
    if not wrong:
        optional = [name for name in _PARTS if name.endswith("_lora") and known.get(name, 0) is None]
        wrong = [
            name
            for name in ("files", "folded", *_PARTS)
            if name not in optional and not isinstance(known.get(name), dict)
        ]
        wrong += [name for name in ("distilled_guidance_scale",) if name not in known]
    if wrong:
        raise RunError(f"{path} is damaged, as its '{wrong[0]}' is missing or invalid: take another copy")


def _write_folded(folded: FoldedLora, folder: Path, source: str) -> tuple[str, ...]:
    """Write a folded LoRA file's changes at strength 1; returns the names of the files."""
    if folded.is_plain:
        lora.save_lora_pairs(folded.pairs(), folder, source)
        return "adapter_config.json", lora.PEFT_WEIGHTS
    state = {
        f"{layer}.{factor}": value
        for layer, factors in folded.changes.items()
        for factor, value in factors.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(state, folder / _FACTORS)
    return (_FACTORS,)


def _read_folded(folder: Path, about: Mapping[str, Any]) -> FoldedLora:
    if (folder / _FACTORS).is_file():
        changes: dict[str, dict[str, Tensor]] = {}
        for key, value in load_file(folder / _FACTORS).items():
            layer, _, factor = key.rpartition(".")
            changes.setdefault(layer, {})[factor] = value
        return FoldedLora(**about, changes=changes)
    pairs = lora.lora_pairs_of_state(load_file(folder / lora.PEFT_WEIGHTS))
    return FoldedLora(**about, changes={name: {UP: up, DOWN: down} for name, (up, down) in pairs.items()})


def _named(package: str, model: LanguageModel | VisionModel) -> dict[str, Any]:
    """Return kind and options of a frozen model, with the full paths of folders and files.

    Raises ModelError for native text encoders, which belong to their pipeline's folder.
    """
    kind = registry.kind_of(package, model)
    if kind not in registry.kinds(package):
        raise ModelError(
            f"a native pipeline has nothing to save: load '{model.config.source}' with BridgePipeline.native"
        )
    options = model.config.model_dump(exclude={"lora_files"})  # their weights are in the saved bridge
    for name in ("source", "config"):
        if options.get(name) is not None and Path(options[name]).exists():
            options[name] = str(Path(options[name]).resolve())
    return {"kind": kind, **options}
