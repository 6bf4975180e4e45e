"""The single file of a bridge: a saved bridge, packed into one safetensors file.

    tensors     PART/NAME                   connector/norm.weight, vision_lora/base_model.model...
    metadata    bridge.json                 as in the folder; its SHA-256 identifies the bridge
                PART/adapter_config.json    PEFT's settings of each LoRA
                models.json                 hashes of the two models' files, and what the denoiser takes
                lavibridge_bridge           the format of the file
                sha256                      over the tensors and the other metadata

The two frozen models are not in the file. Its reader checks all of it before a model loads.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lavibridge.core.config import Config, validate_config
from lavibridge.core.contracts import BlockSpec, VisionSpec
from lavibridge.core.errors import LaviError, RecipeError, RunError
from lavibridge.core.files import parse_json, read_json, write_atomic
from lavibridge.core.paths import path_below
from lavibridge.core.safetensors_file import SafetensorsHeader, load_tensors, read_safetensors_header
from lavibridge.core.sources import SAFETENSORS
from lavibridge.core.tensors import check_tensors_finite
from lavibridge.vision.base import VisionModel

FORMAT = "1"
_FORMAT_KEY, _HASH_KEY = "lavibridge_bridge", "sha256"
DESCRIPTION, MODELS = "bridge.json", "models.json"
LARGEST_HEADER = 2**24
"""Bytes of the header; a bridge with LoRA in thousands of layers needs about one million."""
_WIDEST = 2**16
_AGAIN = "export or download it again"


class StoredBlock(Config):
    """The sizes of one cross-attention layer, as in `BlockSpec`."""

    width: int = Field(ge=1, le=_WIDEST)
    inner: int = Field(ge=1, le=_WIDEST)
    heads: int = Field(ge=1, le=_WIDEST)


class DenoiserInterface(Config):
    """What a connector and other tools must know about the denoiser, so that nobody has to load it."""

    network: str
    """The denoiser's class in Diffusers."""
    context: int = Field(ge=1, le=_WIDEST)
    """Width of the conditioning tokens."""
    pooled: int | None = Field(ge=1, le=_WIDEST)
    """Width of the pooled vector, or None."""
    blocks: dict[str, StoredBlock]
    """Cross-attention layers by name."""
    rms: float | None
    """Root mean square of the model's training tokens, if known."""
    takes_mask: bool
    """Whether the denoiser takes a mask of its conditioning tokens."""
    flow_steps: int | None = Field(ge=1)
    """Training steps of a flow, whose time is ``flow_steps`` times sigma; None for a diffusion model."""

    @staticmethod
    def of(vision: VisionModel) -> "DenoiserInterface":
        """Describe a loaded vision model; the meta device suffices."""
        spec = vision.spec
        return DenoiserInterface(
            network=type(vision.backbone).__name__,
            context=spec.context,
            pooled=spec.pooled,
            blocks={name: StoredBlock(**vars(block)) for name, block in spec.blocks.items()},
            rms=spec.rms,
            takes_mask=vision.honours_mask,
            flow_steps=len(vision.times) if vision.prediction_type == "flow" else None,
        )

    @property
    def spec(self) -> VisionSpec:
        """The properties that a connector uses."""
        blocks = {name: BlockSpec(**block.model_dump()) for name, block in self.blocks.items()}
        return VisionSpec(context=self.context, pooled=self.pooled, blocks=blocks, rms=self.rms)


class StoredModels(Config):
    """The content of models.json."""

    language: str
    """Hash of the language model's files (`source_identity`); the commit of a hub id."""
    vision: str
    """Hash of the vision model's files."""
    denoiser: DenoiserInterface


@dataclass(frozen=True, kw_only=True)
class BridgeFile:
    """A single file that passed all checks."""

    path: Path
    description: str
    """The text of bridge.json."""
    models: StoredModels
    names: tuple[str, ...]
    """Names of all tensors."""

    @property
    def parts(self) -> set[str]:
        """The parts that the file has weights of, such as connector and vision_lora."""
        return {name.rpartition("/")[0] for name in self.names}

    def tensors(self, part: str) -> dict[str, Tensor]:
        """Return a part's weights by name."""
        with safe_open(self.path, framework="pt") as content:
            return {
                name.removeprefix(f"{part}/"): content.get_tensor(name)
                for name in self.names
                if name.rpartition("/")[0] == part
            }


def pack_saved_bridge(folder: Path, file: Path, models: StoredModels) -> None:
    """Pack the folder of a saved bridge into a single file, the same bytes every time."""
    metadata = {_FORMAT_KEY: FORMAT, DESCRIPTION: (folder / DESCRIPTION).read_text(encoding="utf-8")}
    metadata[MODELS] = models.model_dump_json()
    tensors: dict[str, Tensor] = {}
    for name in read_json(folder / DESCRIPTION)["files"]:
        part = name.rpartition("/")[0]
        if name.endswith(SAFETENSORS):
            tensors |= {
                f"{part}/{key}": value for key, value in load_tensors(path_below(folder, name)).items()
            }
        elif part != "connector":  # whose settings are in bridge.json
            metadata[name] = (folder / name).read_text(encoding="utf-8")
    metadata[_HASH_KEY] = _content_hash(metadata, tensors)
    write_atomic(file, _serialized(tensors, metadata))


def is_bridge_file(path: Path) -> bool:
    """Whether a file says that it is the single file of a bridge; it may still be damaged."""
    if path.suffix.lower() != SAFETENSORS or not path.is_file():
        return False
    try:
        with open(path, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            begin = stream.read(min(size, LARGEST_HEADER))
        return _FORMAT_KEY in parse_json(begin.decode("utf-8"), str(path))["__metadata__"]
    except (OSError, LaviError, UnicodeDecodeError, KeyError, TypeError):
        return False


def read_bridge_file(path: Path) -> BridgeFile:
    """Read and check a single file.

    Raises ModelError if it is no complete safetensors file or holds values that are not finite, and RunError
    if it is no bridge, has another format, or its hash differs.
    """
    with open(path, "rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
    if LARGEST_HEADER < size <= path.stat().st_size:
        raise RunError(
            f"'{path}' is no bridge: its header has {size:,} bytes, and that of a bridge at most "
            f"{LARGEST_HEADER:,}; {_AGAIN}"
        )
    header = read_safetensors_header(path)
    metadata = header.metadata
    if _FORMAT_KEY not in metadata:
        raise RunError(
            f"'{path}' is a safetensors file but no bridge: give a file that `lavi export --format bridge` "
            "wrote"
        )
    if metadata[_FORMAT_KEY] != FORMAT:
        raise RunError(
            f"'{path}' has the format {metadata[_FORMAT_KEY][:20]!r} of bridges in one file, but this "
            f"version reads format {FORMAT}: load it with the version that wrote it"
        )
    missing = [name for name in (DESCRIPTION, MODELS, _HASH_KEY) if name not in metadata]
    if missing:
        raise RunError(f"'{path}' is damaged, as its metadata lacks {missing[0]}: {_AGAIN}")
    models = _read_models(path, metadata[MODELS])
    _check_tensors(header)
    return BridgeFile(
        path=path, description=metadata[DESCRIPTION], models=models, names=tuple(sorted(header.tensors))
    )


def read_json_entry(path: Path, name: str, text: str) -> Any:
    """Parse an entry of the metadata. Raises RunError naming file and entry if it is not valid JSON."""
    try:
        return parse_json(text, name)
    except LaviError as error:
        raise RunError(f"'{path}' is damaged: {error}; {_AGAIN}") from None


def _read_models(path: Path, text: str) -> StoredModels:
    content = read_json_entry(path, MODELS, text)
    if not isinstance(content, dict):
        raise RunError(f"'{path}' is damaged, as its {MODELS} is no mapping: {_AGAIN}")
    try:
        return validate_config(StoredModels, content, MODELS)
    except RecipeError as error:
        raise RunError(f"'{path}' is damaged: {error}; {_AGAIN}") from None


def _check_tensors(header: SafetensorsHeader) -> None:
    """Raise an error unless the hash is right and all values are finite."""
    try:
        with safe_open(header.file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in header.tensors}
    except (SafetensorError, OSError) as error:
        raise RunError(f"'{header.file}' cannot be read ({str(error).strip()}): {_AGAIN}") from error
    if _content_hash(header.metadata, tensors) != header.metadata[_HASH_KEY]:
        raise RunError(
            f"'{header.file}' has changed since it was exported (its SHA-256 differs): use another copy"
        )
    check_tensors_finite(tensors, f"'{header.file}'")


def _content_hash(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the metadata, without the hash itself, and over all tensors by name."""
    digest = hashlib.sha256()
    covered = {name: value for name, value in metadata.items() if name not in (_HASH_KEY, "format")}
    digest.update(json.dumps(covered, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _serialized(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file; the library alone writes metadata in a random order."""
    plain = save(dict(tensors))
    size = int.from_bytes(plain[:8], "little")
    header = {
        "__metadata__": {"format": "pt", **dict(sorted(metadata.items()))},
        **parse_json(plain[8 : 8 + size].decode("utf-8"), "header"),
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + plain[8 + size :]
