"""`read_lora_file` folds a LoRA file of another tool into the frozen models of a bridge.

The denoiser's layers go into the vision model. The text encoder's layers are used only if the bridge's
language model is that text encoder.
"""

from os import PathLike

from lavibridge.bridge import Bridge
from lavibridge.bridge.lora_files import LoraReport, denoiser_target, fold_lora_file, text_encoder_target
from lavibridge.bridge.weight_checks import require_whole_weights
from lavibridge.core.paths import expand_path


def read_lora_file(bridge: Bridge, path: str | PathLike[str], strength: float = 1.0) -> LoraReport:
    """Fold a LoRA file of any tool, or a PEFT folder, into the bridge's frozen models.

    ``strength`` multiplies the changes that the file describes; in DoRA it is inside of the norm, as in PEFT.
    Prints how many keys name no layer of the bridge, with examples. Raises ModelError, and changes nothing,
    if no key matches, a shape does not fit, a tensor is missing, the scale is unknown, the method is none of
    LoRA, LoHa, LoKr and DoRA, the bridge already contains the file, or it is merged and the file has DoRA.
    """
    require_whole_weights(bridge, "read a LoRA file into")
    vision, language = bridge.vision, bridge.language
    targets = [denoiser_target(vision)]
    if (language.config.source, language.config.revision) == (vision.config.source, vision.config.revision):
        targets.append(text_encoder_target(language))
    folded, report = fold_lora_file(targets, expand_path(path), strength)
    bridge.origin = {**bridge.origin, f"lora {folded.name}": folded.identity}
    return report
