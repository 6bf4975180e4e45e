"""Opens the teacher of an alignment: the vision model with its own text encoder, or another bridge to it.

Both share the student's denoiser, so that memory holds it only once.
"""

from collections.abc import Mapping
from typing import Any

from lavibridge import lora
from lavibridge.bridge import Bridge, saved_bridge
from lavibridge.core.config import Config
from lavibridge.core.errors import LaviError, ModelError
from lavibridge.recipes.training_section import AlignmentSection
from lavibridge.training.checkpoints.run_fingerprint import section_fingerprint, stored_fingerprint
from lavibridge.training.objectives.native_encoder import native_bridge

SETTING = "training.align"


def open_teacher(student: Bridge, settings: AlignmentSection) -> Bridge:
    """Open the teacher. Raises ModelError if it cannot be opened or has another vision model."""
    if settings.teacher is None:
        return native_bridge(student, SETTING, settings.max_sequence_length)
    stored = read_teacher(settings.teacher, student.vision.config)
    own_lora = lora.lora_settings_of(student.vision.backbone)
    if stored.vision_lora is not None and (own_lora is None or not _is_alike(own_lora, stored.vision_lora)):
        raise ModelError(
            f"{SETTING}.teacher: the student starts from the vision LoRA of '{settings.teacher}' "
            f"({stored.vision_lora}): give lora.vision the same settings"
        )
    teacher = Bridge.compose(stored.language, student.vision, stored.connector, stored.language_lora, None)
    saved_bridge.load_saved_weights(stored, teacher.language, teacher.connector, student.vision)
    for part in (teacher.language, teacher.connector):
        part.to(student.device).requires_grad_(False).eval()
    return teacher


def read_teacher(source: str, vision: Config) -> saved_bridge.SavedBridge:
    """Return the description of a bridge that teaches a student into ``vision``; loads no weights.

    ModelError if there is none, or if it is a bridge into another vision model.
    """
    setting, own = f"{SETTING}.teacher", vision.model_dump()
    try:
        stored = saved_bridge.read_saved_bridge(saved_bridge.locate_saved_bridge(source))
    except LaviError as error:
        raise ModelError(f"{setting}: {error}") from error
    if stored_fingerprint(stored, "vision") != section_fingerprint(own):
        raise ModelError(
            f"{setting} is a bridge to '{stored.vision['source']}', but this recipe's vision model is "
            f"'{own['source']}': choose a teacher with the same vision model"
        )
    return stored


def _is_alike(own: lora.LoraSettings, stored: Mapping[str, Any]) -> bool:
    """Whether LoRA weights with these settings have the same shapes; dropout does not matter."""
    return own.rank == stored["rank"] and list(own.targets or ()) == list(stored["targets"] or ())
