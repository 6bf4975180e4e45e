"""Reads and writes a half, and checks that it belongs to a pivot and to a model.

    half.json                  its pivot, its model and options, and how well it learned
    half.safetensors           its weights
    fingerprint.safetensors    the model's outputs for fixed inputs (`fingerprint.py`)

half.json has the SHA-256 of both files and is written last. It records the identity of the model's files, but
only the fingerprint decides whether a model fits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lavibridge import __version__
from lavibridge.connectors.parts.read_out import make_read_out
from lavibridge.connectors.pivot import Pivot
from lavibridge.core import registry
from lavibridge.core.config import Config
from lavibridge.core.errors import RunError
from lavibridge.core.files import file_sha256, write_json
from lavibridge.core.safetensors_file import load_tensors
from lavibridge.core.tensors import check_tensors_finite, check_tensors_fit, save_tensors
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.language.base import LanguageModel
from lavibridge.pivot.fingerprint import (
    TOLERANCE,
    Fingerprint,
    distance,
    image_fingerprint,
    language_fingerprint,
    tokenizer_hash,
    vision_fingerprint,
)
from lavibridge.pivot.folder import FORMAT, HALF, PivotFolder, Side, add_command, read_description
from lavibridge.vision.base import VisionModel

WEIGHTS, FINGERPRINT = "half.safetensors", "fingerprint.safetensors"
OPTIONS: Mapping[Side, tuple[str, ...]] = {
    "language": ("read", "language_blocks", "language_heads"),
    "vision": ("latents", "vision_blocks", "vision_heads"),
    "image_encoder": ("read", "language_blocks", "language_heads"),
}
"""The connector's options that belong to a half; the options of Z belong to the pivot. A half that fills Z
is a `LanguageHalf`, whatever it reads."""
Model = LanguageModel | VisionModel | ImageEncoder
_DIFFERING: Mapping[Side, str] = {
    "language": "features of the captions",
    "vision": "predictions",
    "image_encoder": "features of the pictures",
}


class Learning(Config):
    """How a half was trained, and how well it learned."""

    teacher: str
    """Its teacher: the vision model's own text encoder, another bridge, or the reference language half."""
    captions: int
    """Number of captions that it learned from."""
    held_out: int
    """Number of held-out captions."""
    fvu: float | None
    """Fraction of variance unexplained on the held-out captions, or None if there are none: of the slots if a
    language half learned from the reference, otherwise of the outputs that the alignment compares."""


class HalfDescription(Config):
    """The content of half.json."""

    format: int
    """The `FORMAT` with which it was written."""
    lavibridge: str
    """The version of lavibridge that wrote it."""
    side: Side
    """Whether it is a language half, a vision half or an image-encoder half."""
    pivot: str
    """The `id` of its pivot."""
    options: dict[str, Any]
    """The connector's options for this half."""
    model: dict[str, Any]
    """Kind and options of the frozen model, such as its source."""
    spec: dict[str, int | None]
    """The model's sizes: width and layers, or context and pooled."""
    tokenizer: str | None
    """Hash of the tokens into which the language model's tokenizer cuts the captions."""
    identity: str
    """Identity of the model's files; recorded, never compared."""
    learning: Learning
    """How it was trained."""
    files: dict[str, str]
    """SHA-256 of each other file of the half."""


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
    """Write a half, with half.json last. Raises ModelError if a weight is not finite."""
    side = _side_of(model)
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
    """Read a half.

    Raises RunError if it is incomplete, changed or of another pivot, ModelError if a weight is not finite.
    """
    folder = pivot.need(side, name)
    description = read_description(HalfDescription, folder / HALF)
    if description.side != side:
        right = pivot.folder / description.side
        raise RunError(f"{folder} holds a {description.side} half: move it into {right}")
    if description.pivot != pivot.description.id:
        raise RunError(
            f"{folder} belongs to pivot {description.pivot}, but {pivot.folder} is pivot "
            f"{pivot.description.id}, and halves of two pivots do not fit: add its model to this pivot with "
            f"`{add_command(side)}`"
        )
    tensors = {file: _load(folder / file, description.files.get(file, "")) for file in (WEIGHTS, FINGERPRINT)}
    weights = tensors[WEIGHTS]
    if tensors[FINGERPRINT].keys() != {"fingerprint"}:
        raise RunError(f"{folder / FINGERPRINT} is damaged: it holds no fingerprint; use another copy")
    check_tensors_finite(weights, f"the {side} half {folder}")
    return StoredHalf(
        folder=folder,
        description=description,
        weights=weights,
        fingerprint=tensors[FINGERPRINT]["fingerprint"],
    )


def load_half(stored: StoredHalf, half: nn.Module) -> None:
    """Load the saved weights into a half of the connector. Raises ModelError if they do not fit."""
    check_tensors_fit(half.state_dict(), stored.weights, f"the half {stored.folder}")
    half.load_state_dict(dict(stored.weights))


def mismatch(stored: StoredHalf, model: Model) -> str | None:
    """Describe how a loaded model differs from the one that a half was made for; None if it does not."""
    description = stored.description
    sizes = spec_mismatch(stored, model)
    if sizes is not None:
        return sizes
    if isinstance(model, LanguageModel) and tokenizer_hash(model) != description.tokenizer:
        return "its tokenizer cuts the captions differently"
    found = distance(_fingerprint_of(model, config_of(stored)), stored.fingerprint)
    allowed = TOLERANCE[description.side]
    if found > allowed:
        what = _DIFFERING[description.side]
        return f"its {what} differ by {found:.1%}, more than {allowed:.0%}: it is another or fine-tuned model"
    return None


def spec_mismatch(stored: StoredHalf, model: Model) -> str | None:
    """Describe how a model's kind or sizes differ, or return None; the model may be on the meta device."""
    kind = registry.kind_of(stored.description.side, model)
    sizes, expected = _spec_of(model), stored.description.spec
    if kind != stored.description.model["kind"]:
        return f"its kind is {kind}, not {stored.description.model['kind']}"
    differing = [
        f"{name} {found}, not {expected[name]}" for name, found in sizes.items() if found != expected[name]
    ]
    return f"it has {', '.join(differing)}" if differing else None


def config_of(*halves: StoredHalf) -> Pivot.Config:
    """Return the connector's options that these halves determine."""
    options: dict[str, Any] = {}
    for stored in halves:
        options |= stored.description.options
    return Pivot.Config.model_validate(options)


def _fingerprint_of(model: Model, config: Pivot.Config) -> Fingerprint:
    """Compute the fingerprint of a model; of an encoder, of the layers that ``config`` reads."""
    if isinstance(model, VisionModel):
        return vision_fingerprint(model)
    layers = make_read_out(config.read, model.spec).layers
    if isinstance(model, ImageEncoder):
        return image_fingerprint(model, layers)
    return language_fingerprint(model, layers)


def _side_of(model: Model) -> Side:
    """Return the side of a pivot that a model belongs to."""
    if isinstance(model, LanguageModel):
        return "language"
    return "vision" if isinstance(model, VisionModel) else "image_encoder"


def _spec_of(model: Model) -> dict[str, int | None]:
    """Return the sizes of a model that a half depends on."""
    if isinstance(model, VisionModel):
        return {"context": model.spec.context, "pooled": model.spec.pooled}
    return {"width": model.spec.width, "layers": model.spec.layers}


def described(model: Model) -> dict[str, Any]:
    """Return kind and options of a model, with the full paths of its folder or file and its configuration."""
    options = model.config.model_dump(mode="json")
    for name in ("source", "config"):
        if options.get(name) is not None and Path(options[name]).exists():
            options[name] = str(Path(options[name]).resolve())
    return {"kind": registry.kind_of(_side_of(model), model), **options}


def _load(path: Path, expected: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise RunError(f"{path} is missing, so the half is incomplete: use another copy")
    if file_sha256(path) != expected:
        raise RunError(f"{path} has changed since it was saved (its SHA-256 differs): use another copy")
    return load_tensors(path)
