"""A half on disk, and the check that it belongs to this pivot and to this model.

    half.json                  which pivot, which model, how it is read, how well it learned
    half.safetensors           its weights
    fingerprint.safetensors    what the model makes of fixed inputs (`fingerprint.py`)

Half.json has the SHA-256 of both files and is written last. The identity of the model's files is recorded,
and only the fingerprint decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lavibridge import __version__
from lavibridge.connectors.parts.read_out import make_read_out
from lavibridge.connectors.pivot import Pivot
from lavibridge.core import registry
from lavibridge.core.config import Config
from lavibridge.core.errors import ModelError, RunError
from lavibridge.core.files import file_sha256, write_json
from lavibridge.core.tensors import check_tensors_finite, check_tensors_fit, save_tensors
from lavibridge.language.base import LanguageModel
from lavibridge.pivot.fingerprint import (
    TOLERANCE,
    Fingerprint,
    distance,
    language_fingerprint,
    tokenizer_hash,
    vision_fingerprint,
)
from lavibridge.pivot.folder import FORMAT, HALF, PivotFolder, Side, read_description
from lavibridge.vision.base import VisionModel

WEIGHTS, FINGERPRINT = "half.safetensors", "fingerprint.safetensors"
OPTIONS: Mapping[Side, tuple[str, ...]] = {
    "language": ("read", "language_blocks", "language_heads"),
    "vision": ("latents", "vision_blocks", "vision_heads"),
}
"""The connector's options that belong to a half; those of Z belong to the pivot."""
Model = LanguageModel | VisionModel


class Learning(Config):
    """How a half learned, and how well."""

    teacher: str
    """What it learned from: the vision model's own text encoder, or the reference language half."""
    captions: int
    """Captions that it learned from."""
    held_out: int
    """Captions that only measured."""
    fvu: float | None
    """Fraction of variance unexplained on those; None without any. Of a language half that learned from the
    reference: of the slots. Of any other: of what the alignment objective compares."""


class HalfDescription(Config):
    """The content of half.json."""

    format: int
    """`FORMAT` of the version that wrote it."""
    lavibridge: str
    """That version."""
    side: Side
    """Which half it is."""
    pivot: str
    """The `id` of its pivot."""
    options: dict[str, Any]
    """Options of the connector that belong to this half."""
    model: dict[str, Any]
    """Kind and options of the frozen model, such as its source and how prompts go in."""
    spec: dict[str, int | None]
    """The model's sizes: width and layers, or context and pooled."""
    tokenizer: str | None
    """Hash of how the language model's tokenizer cuts the captions."""
    identity: str
    """Of the model's files; recorded, never compared."""
    learning: Learning
    """How it learned."""
    files: dict[str, str]
    """SHA-256 of each file beside half.json."""


@dataclass(frozen=True, kw_only=True)
class StoredHalf:
    """A half read from disk."""

    folder: Path
    description: HalfDescription
    weights: Mapping[str, Tensor]
    fingerprint: Fingerprint

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def write_half(
    folder: Path,
    pivot: str,
    model: Model,
    config: Pivot.Config,
    half: nn.Module,
    learning: Learning,
) -> None:
    """Write a half, half.json last. Raises ModelError if a weight is not finite."""
    side: Side = "language" if isinstance(model, LanguageModel) else "vision"
    check_tensors_finite(half.state_dict(), f"the {side} half")
    (folder / HALF).unlink(missing_ok=True)
    save_tensors(half.state_dict(), folder / WEIGHTS)
    save_tensors({"fingerprint": _fingerprint_of(model, config)}, folder / FINGERPRINT)
    options = config.model_dump(mode="json")
    description = HalfDescription(
        format=FORMAT,
        lavibridge=__version__,
        side=side,
        pivot=pivot,
        options={name: options[name] for name in OPTIONS[side]},
        model=described(model),
        spec=_spec_of(model),
        tokenizer=tokenizer_hash(model) if isinstance(model, LanguageModel) else None,
        identity=model.identity(),
        learning=learning,
        files={name: file_sha256(folder / name) for name in (WEIGHTS, FINGERPRINT)},
    )
    write_json(folder / HALF, description.model_dump())


def read_half(pivot: PivotFolder, side: Side, name: str) -> StoredHalf:
    """Read a half. Raises RunError if it is incomplete, changed or of another pivot; ModelError for NaN."""
    folder = pivot.need(side, name)
    description = read_description(HalfDescription, folder / HALF)
    if description.side != side:
        right = pivot.folder / description.side
        raise RunError(f"{folder} holds a {description.side} half: move it into {right}")
    if description.pivot != pivot.description.id:
        raise RunError(
            f"{folder} is a half of pivot {description.pivot}, and {pivot.folder} is pivot "
            f"{pivot.description.id}: halves of two pivots do not fit; add its model here with "
            f"`lavi pivot add-{side}`"
        )
    tensors = {file: _load(folder / file, description.files.get(file, "")) for file in (WEIGHTS, FINGERPRINT)}
    weights = tensors[WEIGHTS]
    check_tensors_finite(weights, f"the {side} half {folder}")
    return StoredHalf(
        folder=folder,
        description=description,
        weights=weights,
        fingerprint=tensors[FINGERPRINT]["fingerprint"],
    )


def load_half(stored: StoredHalf, half: nn.Module) -> None:
    """Put the saved weights into a half of the connector."""
    check_tensors_fit(half.state_dict(), stored.weights, f"the half {stored.folder}")
    half.load_state_dict(dict(stored.weights))


def mismatch(stored: StoredHalf, model: Model) -> str | None:
    """Return how a loaded model differs from the one that a half was made for, or None."""
    description = stored.description
    sizes = spec_mismatch(stored, model)
    if sizes is not None:
        return sizes
    if isinstance(model, LanguageModel) and tokenizer_hash(model) != description.tokenizer:
        return "its tokenizer cuts the captions at other places"
    found = distance(_fingerprint_of(model, config_of(stored)), stored.fingerprint)
    allowed = TOLERANCE[description.side]
    if found > allowed:
        what = "features of the captions" if isinstance(model, LanguageModel) else "predictions"
        return f"its {what} differ by {found:.1%} ({allowed:.0%} are allowed): it is another or fine-tuned"
    return None


def spec_mismatch(stored: StoredHalf, model: Model) -> str | None:
    """Return how the kind or the sizes of a model differ, which may be on the meta device, or None."""
    kind = registry.kind_of(stored.description.side, model)
    sizes, expected = _spec_of(model), stored.description.spec
    if kind != stored.description.model["kind"]:
        return f"it is of kind {kind} and not {stored.description.model['kind']}"
    differing = [
        f"{name} {found} and not {expected[name]}" for name, found in sizes.items() if found != expected[name]
    ]
    return f"it has {', '.join(differing)}" if differing else None


def config_of(*halves: StoredHalf) -> Pivot.Config:
    """Return the options that halves bring to the connector."""
    options: dict[str, Any] = {}
    for stored in halves:
        options |= stored.description.options
    return Pivot.Config.model_validate(options)


def _fingerprint_of(model: Model, config: Pivot.Config) -> Fingerprint:
    """Return the fingerprint of a model, of the layers that the options read."""
    if isinstance(model, VisionModel):
        return vision_fingerprint(model)
    return language_fingerprint(model, make_read_out(config.read, model.spec).layers)


def _spec_of(model: Model) -> dict[str, int | None]:
    """Return the sizes of a model that a half depends on."""
    if isinstance(model, VisionModel):
        return {"context": model.spec.context, "pooled": model.spec.pooled}
    return {"width": model.spec.width, "layers": model.spec.layers}


def described(model: Model) -> dict[str, Any]:
    """Return kind and options of a model; a folder is named by its full path."""
    package = "vision" if isinstance(model, VisionModel) else "language"
    options = model.config.model_dump(mode="json")
    if Path(options["source"]).is_dir():
        options["source"] = str(Path(options["source"]).resolve())
    return {"kind": registry.kind_of(package, model), **options}


def _load(path: Path, expected: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise RunError(f"{path} is missing: the half is not complete, take another copy")
    if file_sha256(path) != expected:
        raise RunError(f"{path} is not what was saved (its SHA-256 differs): take another copy")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} cannot be read ({error}): take another copy") from error
