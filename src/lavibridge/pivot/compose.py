"""Joins two halves to a bridge, for any language model and any vision model of a pivot.

    bridge = compose("pivots/mini", "mini-bert", "mini-pixart")

The result is an ordinary bridge, which can generate, train, save and serve, and no longer needs the pivot.
"""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import torch
from torch import nn

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import LoraChoice, ModelChoice, model_of_choice
from lavibridge.connectors.pivot import Pivot
from lavibridge.core.errors import ModelError
from lavibridge.core.paths import expand_path
from lavibridge.core.sources import resolve_source
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.pivot.folder import PivotFolder, Side, add_command, read_pivot
from lavibridge.pivot.half import (
    WEIGHTS,
    Model,
    StoredHalf,
    config_of,
    load_half,
    mismatch,
    read_half,
    spec_mismatch,
)


def compose(
    pivot: str | PathLike[str],
    language: ModelChoice,
    vision: ModelChoice,
    *,
    language_lora: LoraChoice = None,
    vision_lora: LoraChoice = None,
    dtype: str | None = None,
) -> Bridge:
    """Join two halves of a pivot to a bridge, whether or not they were trained together.

    ``language`` and ``vision`` are either the name of a half, whose model is loaded from the source that the
    half records, or a model as in `Bridge.compose`. Such a model must be the one that a half was made for,
    but may be another copy of it: a hub id, a folder, or another number format. ``dtype`` replaces the number
    format of both models. LoRA, none by default, is as in `Bridge.compose`. Raises RunError, before models
    load, if a half is missing, damaged or of another pivot, and ModelError if the pivot has no half for a
    model.
    """
    opened = read_pivot(pivot)
    languages = candidates_of(opened, "language", language)
    visions = candidates_of(opened, "vision", vision)
    return bridge_of_halves(
        opened,
        _matched(opened, "language", language, languages, dtype),
        _matched(opened, "vision", vision, visions, dtype),
        language_lora=language_lora,
        vision_lora=vision_lora,
    )


def bridge_of_halves(
    pivot: PivotFolder,
    language: tuple[StoredHalf, Model],
    vision: tuple[StoredHalf, Model],
    *,
    language_lora: LoraChoice = None,
    vision_lora: LoraChoice = None,
) -> Bridge:
    """Return a bridge of two halves and their loaded models, as `open_half` returns them."""
    (language_half, language_model), (vision_half, vision_model) = language, vision
    assert not isinstance(language_model, ImageEncoder)  # by its side
    assert not isinstance(vision_model, ImageEncoder)
    options = {
        **config_of(language_half, vision_half).model_dump(),
        "slots": pivot.description.slots,
        "width": pivot.description.width,
    }
    bridge = Bridge.compose(
        language_model, vision_model, {"kind": "pivot", **options}, language_lora, vision_lora
    )
    assert isinstance(bridge.connector, Pivot)  # by its kind
    load_half(language_half, bridge.connector.language_half)
    load_half(vision_half, bridge.connector.vision_half)
    bridge.origin = {
        "folder": pivot.folder.as_posix(),
        "language_half": language_half.name,
        "vision_half": vision_half.name,
        "language_weights": language_half.description.files[WEIGHTS],
        "vision_weights": vision_half.description.files[WEIGHTS],
    }
    return bridge.eval()


def open_half(
    pivot: PivotFolder, side: Side, choice: ModelChoice, dtype: str | None = None
) -> tuple[StoredHalf, Model]:
    """Return the half that a choice names, or that was made for the chosen model; and the loaded model."""
    return _matched(pivot, side, choice, candidates_of(pivot, side, choice), dtype)


def candidates_of(pivot: PivotFolder, side: Side, choice: ModelChoice) -> list[StoredHalf]:
    """Return the halves that a choice may refer to: the one of this name, those of this source, or all.

    Loads no model. Raises RunError if a half is damaged or of another pivot, or if there are none.
    """
    if isinstance(choice, str) and choice in pivot.names(side):
        return [read_half(pivot, side, choice)]
    source = _source_of(choice)
    halves = [read_half(pivot, side, name) for name in pivot.names(side)]
    same = [stored for stored in halves if source is not None and _is_source(stored, source)]
    if not halves or (isinstance(choice, str) and not same and not _is_model(choice)):
        pivot.need(side, str(source))
    return same or halves


def _matched(
    pivot: PivotFolder,
    side: Side,
    choice: ModelChoice,
    candidates: list[StoredHalf],
    dtype: str | None,
) -> tuple[StoredHalf, Model]:
    """Load the model and return the candidate that was made for it. Raises ModelError if there is none."""
    number_format = {} if dtype is None else {"dtype": dtype}
    reasons = []
    for stored in candidates:
        options: Any = choice
        if not isinstance(choice, nn.Module):
            options = {**_options(stored, choice), **number_format}
            try:
                reason = spec_mismatch(stored, model_of_choice(side, options, torch.device("meta")))
            except ModelError as error:  # the half's options, such as its token limit, suit no other model
                reason = str(error)
            if reason is not None:
                reasons.append(f"'{stored.name}': {reason}")
                continue
        model: Model = model_of_choice(side, options)
        reason = mismatch(stored, model)
        if reason is None:
            return stored, model
        reasons.append(f"'{stored.name}': {reason}")
    shown = _source_of(choice)
    raise ModelError(
        f"{pivot.folder} has no {side} half for the model '{shown}' ({'; '.join(reasons)}); add it with "
        f"`{add_command(side)}`"
    )


def _options(stored: StoredHalf, choice: ModelChoice) -> dict[str, Any]:
    """Return the options for loading a model: those of its half, overridden by those of the choice."""
    options = dict(stored.description.model)
    if isinstance(choice, str) and choice == stored.name:
        return options
    given = dict(choice) if isinstance(choice, Mapping) else {"source": choice}
    if "source" in given and not _is_source(stored, str(_source_of(choice))):
        options.pop("revision", None)
        options.pop("kind", None)  # detected from its configuration
    return {**options, **given}


def _source_of(choice: Any) -> str | None:
    """Return the source that a choice names."""
    if isinstance(choice, nn.Module):
        return str(choice.config.source)  # type: ignore[union-attr]
    source = choice.get("source") if isinstance(choice, Mapping) else choice
    return None if source is None else fspath(source)


def _is_source(stored: StoredHalf, source: str) -> bool:
    """Whether a half was made from a source; compares folders by their resolved paths."""
    own = str(stored.description.model["source"])
    if source == own:
        return True
    folder = expand_path(source)
    return folder.is_dir() and expand_path(own) == folder.resolve()


def _is_model(source: str) -> bool:
    """Whether a source is a model's folder, a shipped model or a hub id, and not a misspelt half."""
    try:
        return "/" in resolve_source(source)
    except ModelError:
        return False
