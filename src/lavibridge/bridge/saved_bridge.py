"""Saves and loads a bridge: its trained weights, and bridge.json, which names the frozen models.

    bridge.json        kinds, options, and the SHA-256 of every other file; written last
    connector/         config.json, model.safetensors
    language_lora/     adapter_config.json, adapter_model.safetensors, in PEFT's layout
    vision_lora/       the same
    vision_folded/0/   each LoRA file in the frozen weights (folded_files.py); also language_folded/

`bridge_file.py` packs such a folder into one file, which the functions here read as well. A run folder holds
such folders as ``checkpoints/step-N/bridge`` and, with averaged weights, ``checkpoints/step-N/ema``. A
checkpoint is complete once it has a manifest.json.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from lavibridge import __version__, lora
from lavibridge.bridge.bridge_file import BridgeFile, is_bridge_file, read_bridge_file, read_json_entry
from lavibridge.bridge.description import FORMAT, PARTS, check_description
from lavibridge.bridge.folded_files import folded_of_state, write_folded
from lavibridge.bridge.hub import download_bridge_from_hub
from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RunError
from lavibridge.core.files import file_sha256, read_json, write_json
from lavibridge.core.paths import expand_path, path_below
from lavibridge.core.safetensors_file import load_tensors, read_safetensors_header
from lavibridge.core.sources import is_hub_id
from lavibridge.core.tensors import check_tensors_finite, check_tensors_fit, save_tensors
from lavibridge.core.weight_changes import FoldedLora, fold_lora
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

_DESCRIPTION = "bridge.json"
CHECKPOINT_MANIFEST = "manifest.json"
"""Written last into a checkpoint."""
_CONNECTOR_WEIGHTS = "connector/model.safetensors"


@dataclass(frozen=True, kw_only=True)
class SavedBridge:
    """The content of bridge.json: the arguments of ``Bridge.compose``, and the place of the weights."""

    path: Path
    """Its folder, or its single file."""
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
    packed: BridgeFile | None
    """The single file; None for a folder."""

    @property
    def parts(self) -> list[str]:
        """The parts that have weights: connector, language_lora, vision_lora, vision_folded/0, ..."""
        lora_parts = [name for name in PARTS if name.endswith("_lora") and getattr(self, name) is not None]
        folded = [
            f"{name}_folded/{index}" for name, each in self.folded.items() for index in range(len(each))
        ]
        return ["connector", *lora_parts, *folded]

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Return the weights of one of ``parts`` by name. Raises RunError if its file is missing."""
        if self.packed is not None:
            return self.packed.tensors(part)
        file = self.path / (_CONNECTOR_WEIGHTS if part == "connector" else f"{part}/{lora.PEFT_WEIGHTS}")
        if not file.is_file():
            raise RunError(f"{file} is missing, so the saved bridge is incomplete: take another copy")
        return load_tensors(file)

    def folded_in(self, package: str) -> list[FoldedLora]:
        """Return the LoRA files in the frozen weights of the language or vision model."""
        found = []
        for index, about in enumerate(self.folded.get(package, ())):
            state = self.tensors(f"{package}_folded/{index}")
            check_tensors_finite(state, f"the LoRA file '{about['name']}' in {self.path}")
            found.append(folded_of_state(state, about))
        return found


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
        "format": FORMAT,
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
            written = write_folded(each, folder / place, model.config.source)
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
    if found.is_file():
        return _read_packed(found)
    description = read_json(found / _DESCRIPTION)
    check_description(description, found / _DESCRIPTION)
    for name, expected in description["files"].items():
        path = path_below(found, name)
        if not path.is_file():
            raise RunError(f"{path} is missing, so the saved bridge is incomplete: take another copy")
        if file_sha256(path) != expected:
            raise RunError(f"{path} has changed since it was saved (its SHA-256 differs): take another copy")
    return _described(description, found, file_sha256(found / _DESCRIPTION))


def load_saved_weights(
    stored: SavedBridge, language: LanguageModel, connector: Connector, vision: VisionModel
) -> None:
    """Load the saved weights into the parts of a composed bridge. Raises ModelError if they do not fit.

    LoRA files that a model contains already, because its recipe names them, are not added again.
    """
    load_text_weights(stored, language, connector)
    _load_lora(stored, "vision", vision)


def load_text_weights(stored: SavedBridge, language: LanguageModel, connector: Connector) -> None:
    """Load the weights of connector and language LoRA. Raises ModelError if they do not fit."""
    weights = stored.tensors("connector")
    check_tensors_finite(weights, f"the connector in {stored.path}")
    try:
        check_tensors_fit(connector.state_dict(), weights, "the connector")
        connector.load_state_dict(weights)
    except ModelError as error:
        raise ModelError(
            f"the saved connector does not fit between '{language.config.source}' and "
            f"'{stored.vision['source']}': check whether these models have changed ({error})"
        ) from error
    _load_lora(stored, "language", language)


def _load_lora(stored: SavedBridge, package: str, model: LanguageModel | VisionModel) -> None:
    """Load a model's LoRA, and the LoRA files in its frozen weights."""
    present = {each.identity for each in model.folded}
    for folded in stored.folded_in(package):
        if folded.identity not in present:
            fold_lora(model.backbone, folded)
            model.folded += (folded,)
    if f"{package}_lora" in stored.parts:
        state = stored.tensors(f"{package}_lora")
        lora.load_lora_state(model.backbone, state, f"{package} model in {stored.path}")


def locate_saved_bridge(source: str | PathLike[str], revision: str | None = None) -> Path:
    """Return the folder of a saved bridge, a checkpoint, a run's newest checkpoint, or a hub download; or the
    single file.

    Raises RunError if there is none.
    """
    folder = expand_path(source)
    return (
        download_bridge_from_hub(str(source), revision)
        if not folder.exists() and is_hub_id(source)
        else find_saved_bridge(folder)
    )


def find_saved_bridge(folder: Path) -> Path:
    """Return the folder with bridge.json in or below ``folder``; a file as it is. Raises RunError if there is
    none."""
    if folder.is_file():
        return folder
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


def saved_bridge_hash(folder: Path) -> str | None:
    """Return the SHA-256 that identifies the bridge in or below ``folder``, or None if there is none.

    The single file of a bridge has the same one as its folder.
    """
    try:
        if is_bridge_file(folder):
            return read_saved_bridge(folder).sha256
        return file_sha256(find_saved_bridge(folder) / _DESCRIPTION)
    except RunError:
        return None


def read_bridge_description(place: Path) -> Any:
    """Return the content of bridge.json, in a folder or a single file, unchecked.

    Raises LaviError if it is damaged.
    """
    if place.is_dir():
        return read_json(place / _DESCRIPTION)
    metadata = read_safetensors_header(place).metadata
    return read_json_entry(place, _DESCRIPTION, metadata.get(_DESCRIPTION, ""))


def holds_saved_bridge(folder: Path) -> bool:
    """Whether ``folder`` holds a bridge or a run, even one without a checkpoint yet."""
    return any(
        (folder / name).exists() for name in (_DESCRIPTION, "checkpoints", "recipe.yaml", CHECKPOINT_MANIFEST)
    )


def _read_packed(path: Path) -> SavedBridge:
    """Read a single file. Raises RunError if its description is damaged or it lacks a part."""
    packed = read_bridge_file(path)
    description = read_json_entry(path, _DESCRIPTION, packed.description)
    check_description(description, path)
    stored = _described(description, path, hashlib.sha256(packed.description.encode()).hexdigest(), packed)
    differing = sorted(packed.parts ^ set(stored.parts))
    if differing:
        state = "holds" if differing[0] in packed.parts else "lacks"
        raise RunError(
            f"'{path}' {state} weights of '{differing[0]}', against its {_DESCRIPTION}: use another copy"
        )
    return stored


def _described(
    description: Mapping[str, Any], path: Path, sha256: str, packed: BridgeFile | None = None
) -> SavedBridge:
    return SavedBridge(
        path=path,
        sha256=sha256,
        distilled_guidance_scale=description["distilled_guidance_scale"],
        folded=description["folded"],
        packed=packed,
        **{part: description[part] for part in PARTS},
    )


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
