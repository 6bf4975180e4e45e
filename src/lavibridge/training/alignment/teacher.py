"""The teacher of an alignment: the vision model under its own text side, or another bridge into it.

Either shares the student's denoiser, so that no second one is in memory.
"""

from collections.abc import Mapping
from typing import Any

from lavibridge import lora
from lavibridge.bridge import Bridge, saved_bridge
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.core.identity import source_identity
from lavibridge.recipes.training_section import AlignmentSection
from lavibridge.training.objectives.native_encoder import native_bridge

SETTING = "training.align"


def open_teacher(student: Bridge, settings: AlignmentSection) -> Bridge:
    """Return the teacher. ModelError if it cannot be opened, or is a bridge into another vision model."""
    if settings.teacher is None:
        return native_bridge(student, SETTING, settings.max_sequence_length)
    setting = f"{SETTING}.teacher"
    try:
        stored = saved_bridge.read_saved_bridge(saved_bridge.locate_saved_bridge(settings.teacher))
    except LaviError as error:
        raise ModelError(f"{setting}: {error}") from error
    theirs, ours = (
        source_identity(str(section["source"]), section.get("revision"), section.get("config"))
        for section in (stored.vision, student.vision.config.model_dump())
    )
    if theirs != ours:
        raise ModelError(
            f"{setting} is a bridge into '{stored.vision['source']}', and this one leads into "
            f"'{student.vision.config.source}': a teacher and its student share the vision model"
        )
    own_lora = lora.lora_settings_of(student.vision.backbone)
    if stored.vision_lora is not None and (own_lora is None or not _is_alike(own_lora, stored.vision_lora)):
        raise ModelError(
            f"{setting}: the vision model of '{settings.teacher}' has LoRA ({stored.vision_lora}), which the "
            "student takes over: give lora.vision the same settings"
        )
    teacher = Bridge.compose(stored.language, student.vision, stored.connector, stored.language_lora, None)
    saved_bridge.load_saved_weights(stored, teacher.language, teacher.connector, student.vision)
    for part in (teacher.language, teacher.connector):
        part.to(student.device).requires_grad_(False).eval()
    return teacher


def _is_alike(own: lora.LoraSettings, stored: Mapping[str, Any]) -> bool:
    """Whether weights of the one fit into the other; dropout plays no part in it."""
    return own.rank == stored["rank"] and list(own.targets or ()) == list(stored["targets"] or ())
