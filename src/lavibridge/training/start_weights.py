"""The weights that a new run starts from (`training.start`): a saved bridge's, or those of two halves.

    bridge    its connector and LoRA, whose models, connector and LoRA are those of the recipe
    pivot     the halves of the recipe's two models as one connector; new LoRA changes nothing yet

The first loss is therefore that of the bridge, or of the composed pair. A run that resumes has its weights in
a checkpoint and reads neither.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge import lora
from lavibridge.bridge import Bridge, saved_bridge
from lavibridge.bridge.lora_files import lora_file_at, lora_file_hash
from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.connectors.pivot import Pivot
from lavibridge.core import registry
from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.pivot.compose import candidates_of, open_half
from lavibridge.pivot.folder import PivotFolder, Side, read_pivot
from lavibridge.pivot.half import OPTIONS, Model, StoredHalf, load_half, mismatch
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.recipes.training_section import StartSection
from lavibridge.training.checkpoints.run_fingerprint import section_fingerprint, stored_fingerprint

START_SETTING = "training.start"


def check_start_weights(recipe: Recipe) -> None:
    """Raise RecipeError if what `training.start` names cannot be read, or cannot fit; loads no model."""
    start = recipe.training.start
    if start is None:
        return
    kind = kind_of_section(recipe.connector)
    if start.pivot is not None:
        if kind != "pivot":
            raise RecipeError(
                f"{START_SETTING}.pivot starts from two halves, and the connector is '{kind}': use "
                f"connector.kind=pivot, or compose the pair, save it and name it by {START_SETTING}.bridge"
            )
        _read_pivot(start)
        return
    stored = _read_bridge(start)
    differing = _differing(stored.connector, recipe.connector.model_dump(mode="json"))
    if differing:
        raise RecipeError(
            f"the connector of {START_SETTING}.bridge has other options than the recipe's: "
            f"{'; '.join(differing)}; write its options into the recipe"
        )
    teacher = recipe.training.teacher
    guidance = teacher.guidance if teacher is not None and teacher.guidance != 1 else None
    if stored.distilled_guidance_scale != guidance:
        raise RecipeError(
            f"{START_SETTING}.bridge draws with distilled guidance {stored.distilled_guidance_scale}, and "
            f"the recipe distils {guidance}: set training.teacher.guidance to the same"
        )
    if stored.folded.get("language"):
        raise RecipeError(
            f"{START_SETTING}.bridge has LoRA files merged into its frozen language model, which training "
            "does not continue: start from a bridge without them"
        )
    theirs, ours = _folded_files(stored), _lora_files(recipe.vision.model_dump())
    if theirs != ours:
        raise RecipeError(
            f"{START_SETTING}.bridge has the LoRA files [{', '.join(theirs)}] in its denoiser, and the "
            f"recipe names [{', '.join(ours)}]: name the same, at the same strength, in vision.lora_files"
        )


def load_start_weights(bridge: Bridge, start: StartSection) -> None:
    """Put the weights into a new bridge. Raises LaviError if its models, options or LoRA differ."""
    if start.pivot is None:
        _load_bridge(bridge, _read_bridge(start))
        return
    pivot = _read_pivot(start)
    connector = bridge.connector
    assert isinstance(connector, Pivot)  # check_start_weights ensures it
    config = connector.config
    load_half(_half_of(pivot, "language", bridge.language, config), connector.language_half)
    load_half(_half_of(pivot, "vision", bridge.vision, config), connector.vision_half)


def _load_bridge(bridge: Bridge, stored: SavedBridge) -> None:
    for name, section, model, stored_lora in (
        ("language", stored.language, bridge.language, stored.language_lora),
        ("vision", stored.vision, bridge.vision, stored.vision_lora),
    ):
        kind, source = registry.kind_of(name, model), model.config.source
        theirs, ours = stored_fingerprint(stored, name), section_fingerprint(model.config.model_dump())
        if (section["kind"], theirs) != (kind, ours):
            raise RecipeError(
                f"the {name} model of {START_SETTING}.bridge is {section['kind']} '{section['source']}', and "
                f"the recipe's is {kind} '{source}': name the same"
            )
        if stored_lora is not None:
            settings = lora.lora_settings_of(model.backbone)
            differing = _differing(
                stored_lora,
                {} if settings is None else settings.model_dump(mode="json"),
                without=("dropout",),
            )
            if differing:
                raise RecipeError(
                    f"the {name} model of {START_SETTING}.bridge has LoRA with other settings than "
                    f"lora.{name}: {'; '.join(differing)}"
                )
    saved_bridge.load_saved_weights(stored, bridge.language, bridge.connector, bridge.vision)


def _folded_files(stored: SavedBridge) -> list[str]:
    """Name, hash and strength of each LoRA file in the denoiser of a saved bridge."""
    return [_lora_file(**each) for each in stored.folded.get("vision", ())]


def _lora_files(vision: Mapping[str, Any]) -> list[str]:
    """The same of each LoRA file that a recipe names."""
    files = [(lora_file_at(Path(each["path"])), each["strength"]) for each in vision["lora_files"]]
    return [_lora_file(file.name, lora_file_hash(file), strength) for file, strength in files]


def _lora_file(name: str, sha256: str, strength: float) -> str:
    return f"{name} ({sha256[:12]}) x {strength:g}"


def _half_of(pivot: PivotFolder, side: Side, model: Model, config: Pivot.Config) -> StoredHalf:
    """Return the half of a model that has the connector's options."""
    fitting = [stored for stored in candidates_of(pivot, side, model) if mismatch(stored, model) is None]
    if not fitting:
        open_half(pivot, side, model)  # which says why none fits
    options = config.model_dump(mode="json")
    own = {name: options[name] for name in (*OPTIONS[side], "slots", "width")}
    space = {"slots": pivot.description.slots, "width": pivot.description.width}
    differences = [_differing({**stored.description.options, **space}, own) for stored in fitting]
    if [] not in differences:
        raise RecipeError(
            f"the {side} half '{fitting[0].name}' of {START_SETTING}.pivot has other options than the "
            f"recipe's connector: {'; '.join(differences[0])}; write its options into the recipe"
        )
    return fitting[differences.index([])]


def _read_pivot(start: StartSection) -> PivotFolder:
    assert start.pivot is not None  # the caller has checked it
    try:
        return read_pivot(start.pivot)
    except LaviError as error:
        raise RecipeError(f"{START_SETTING}.pivot: {error}") from error


def _read_bridge(start: StartSection) -> SavedBridge:
    assert start.bridge is not None  # the section has one of the two
    try:
        return saved_bridge.read_saved_bridge(saved_bridge.locate_saved_bridge(start.bridge))
    except LaviError as error:
        raise RecipeError(f"{START_SETTING}.bridge: {error}") from error


def _differing(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], without: tuple[str, ...] = ()
) -> list[str]:
    """Describe each option that differs."""
    return [
        f"{name} {theirs.get(name)!r} and not {ours.get(name)!r}"
        for name in sorted(theirs.keys() | ours.keys())
        if name not in without and theirs.get(name) != ours.get(name)
    ]
