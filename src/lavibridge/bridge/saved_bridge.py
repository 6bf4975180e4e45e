"""A bridge on disk: its trained weights, and bridge.json, which names the frozen models and is written last.

    bridge.json        kinds, options, and the SHA-256 of every file beside it
    connector/         config.json, model.safetensors
    language_lora/     adapter_config.json, adapter_model.safetensors, as PEFT reads them
    vision_lora/       the same
    vision_folded/0/   the same, of each LoRA file that is part of the frozen weights; language_folded/ too

A run folder keeps such folders as ``checkpoints/step-N/bridge`` and, averaged over training,
``checkpoints/step-N/ema``; a checkpoint counts when its manifest.json is there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lavibridge import __version__, lora
from lavibridge.bridge.hub import download_bridge_from_hub, is_hub_id
from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RunError
from lavibridge.core.files import read_json, file_sha256, write_json
from lavibridge.core.low_rank import FoldedLora, fold_low_rank
from lavibridge.core.paths import expand_path
from lavibridge.core.tensors import check_tensors_finite, save_tensors
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

_FORMAT = 3
"""The format of bridge.json. 1 and 2, of unreleased versions, name the distilled guidance otherwise."""
_DESCRIPTION = "bridge.json"
CHECKPOINT_MANIFEST = "manifest.json"
"""Written last into a checkpoint."""
_CONNECTOR_WEIGHTS = "connector/model.safetensors"
_PARTS = ("language", "vision", "connector", "language_lora", "vision_lora")


@dataclass(frozen=True, kw_only=True)
class SavedBridge:
    """What bridge.json says: the arguments of ``Bridge.compose``, and where the weights lie."""

    folder: Path
    sha256: str
    """Of bridge.json, which holds those of all other files."""
    language: Mapping[str, Any]
    vision: Mapping[str, Any]
    connector: Mapping[str, Any]
    language_lora: Mapping[str, Any] | None
    vision_lora: Mapping[str, Any] | None
    distilled_guidance_scale: float | None
    folded: Mapping[str, Sequence[Mapping[str, str]]]
    """Name and SHA-256 of the LoRA files in the frozen weights, by model."""


def write_saved_bridge(
    folder: Path,
    language: LanguageModel,
    connector: Connector,
    vision: VisionModel,
    distilled_guidance_scale: float | None,
) -> None:
    """Write a bridge's description and its trained weights, which have to be finite, into ``folder``.

    RunError where that is a file.
    """
    for model, name in ((language, "language model"), (vision, "vision model")):
        check_tensors_finite(lora.lora_parameters(model.backbone), f"the LoRA of the {name}")
    check_tensors_finite(connector.state_dict(), "the connector")
    named = {"language": _named("language", language), "vision": _named("vision", vision)}
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, where a folder is to be written: name another")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _DESCRIPTION).unlink(missing_ok=True)  # until the end, so that a half-written folder is none
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
    folded: dict[str, list[dict[str, str]]] = {}
    for package, model in (("language", language), ("vision", vision)):
        for index, each in enumerate(model.folded):
            place = f"{package}_folded/{index}"
            lora.save_lora_pairs(each.pairs, folder / place, model.config.source)
            files += [f"{place}/adapter_config.json", f"{place}/{lora.PEFT_WEIGHTS}"]
            folded.setdefault(package, []).append({"name": each.name, "sha256": each.sha256})
    description["folded"] = folded
    description["files"] = {name: file_sha256(folder / name) for name in files}
    write_json(folder / _DESCRIPTION, description)


def read_saved_bridge(folder: Path) -> SavedBridge:
    """Read the description of a saved bridge, of a checkpoint, or of a run folder's newest checkpoint."""
    found = find_saved_bridge(folder)
    description = read_json(found / _DESCRIPTION)
    _check(description, found / _DESCRIPTION)
    for name, expected in description["files"].items():
        if not (found / name).is_file():
            raise RunError(f"{found / name} is missing: the saved bridge is not complete")
        if file_sha256(found / name) != expected:
            raise RunError(f"{found / name} is not what was saved (its SHA-256 differs): take another copy")
    return SavedBridge(
        folder=found,
        sha256=file_sha256(found / _DESCRIPTION),
        distilled_guidance_scale=description["distilled_guidance_scale"],
        folded=description["folded"],
        **{part: description[part] for part in _PARTS},
    )


def load_saved_weights(stored: SavedBridge, language: LanguageModel, connector: Connector, vision: VisionModel) -> None:
    """Put the saved weights into the parts of a composed bridge."""
    weights = load_file(stored.folder / _CONNECTOR_WEIGHTS)
    check_tensors_finite(weights, f"the connector in {stored.folder}")
    try:
        connector.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(
            f"the saved connector does not fit between '{language.config.source}' and "
            f"'{vision.config.source}': were these models replaced? {error}"
        ) from error
    for package, model in (("language", language), ("vision", vision)):
        for index, named in enumerate(stored.folded.get(package, ())):
            state = load_file(stored.folder / f"{package}_folded/{index}" / lora.PEFT_WEIGHTS)
            folded = FoldedLora(**named, pairs=lora.lora_pairs_of_state(state))
            fold_low_rank(model.backbone, folded.pairs)
            model.folded += (folded,)
    if stored.language_lora is not None:
        lora.load_lora(language.backbone, stored.folder / "language_lora", "language model")
    if stored.vision_lora is not None:
        lora.load_lora(vision.backbone, stored.folder / "vision_lora", "vision model")


def locate_saved_bridge(source: str | PathLike[str], revision: str | None = None) -> Path:
    """The folder of a bridge: saved, a checkpoint, a run's newest checkpoint, or downloaded from the hub.

    Raises RunError where there is none.
    """
    folder = expand_path(source)
    return download_bridge_from_hub(str(source), revision) if not folder.exists() and is_hub_id(source) else find_saved_bridge(folder)


def find_saved_bridge(folder: Path) -> Path:
    """The folder with bridge.json in or below ``folder``."""
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    for place in (folder, *reversed(saved_checkpoints(folder))):
        for inner in (place, place / "ema", place / "bridge"):
            if (inner / _DESCRIPTION).is_file():
                return inner
    raise RunError(
        f"{folder} holds neither {_DESCRIPTION} nor a complete checkpoint: give a run folder or a saved bridge"
    )


def saved_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first; a copy by another name, `step-9.bak`, is none."""
    found = [path.parent for path in run.glob(f"checkpoints/step-*/{CHECKPOINT_MANIFEST}")]
    named = [path for path in found if re.fullmatch(r"step-[0-9]+", path.name)]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")))


def saved_bridge_hash(folder: Path) -> str | None:
    """The SHA-256 that tells the bridge in or below ``folder`` from any other; None where there is none."""
    try:
        return file_sha256(find_saved_bridge(folder) / _DESCRIPTION)
    except RunError:
        return None


def holds_saved_bridge(folder: Path) -> bool:
    """Whether a bridge lies in or below ``folder``, a run that has no checkpoint yet included."""
    return any((folder / name).exists() for name in (_DESCRIPTION, "checkpoints", "recipe.yaml", CHECKPOINT_MANIFEST))


def _check(description: Any, path: Path) -> None:
    """RunError where bridge.json is of another format, or lacks what this one has."""
    known = description if isinstance(description, dict) else {}
    wrong = [] if "format" in known else ["format"]
    if not wrong and known["format"] != _FORMAT:
        writer = f"lavibridge {known['lavibridge']}" if "lavibridge" in known else "an earlier version"
        raise RunError(
            f"{path} has format {known['format']!r}, written by {writer}, and this version reads format "
            f"{_FORMAT}: load it with the version that wrote it, or train it anew"
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
        raise RunError(f"{path} is damaged, its '{wrong[0]}' cannot be read: take another copy")


def _named(package: str, model: LanguageModel | VisionModel) -> dict[str, Any]:
    """Kind and options of a frozen model; a folder is named by its full path.

    ModelError for a native text side, which belongs to its pipeline's folder.
    """
    kind = registry.kind_of(package, model)
    if kind not in registry.kinds(package):
        raise ModelError(
            f"a native pipeline has nothing to save: open '{model.config.source}' with BridgePipeline.native"
        )
    options = model.config.model_dump()
    if Path(options["source"]).is_dir():
        options["source"] = str(Path(options["source"]).resolve())
    return {"kind": kind, **options}
