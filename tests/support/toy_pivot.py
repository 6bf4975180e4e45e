"""A pivot of toys, with halves that have not learned: what is combined and refused does not depend on it."""

from pathlib import Path

import torch

from lavibridge.bridge.choices import model_of_choice
from lavibridge.connectors.pivot import LanguageHalf, Pivot, VisionHalf
from lavibridge.pivot.folder import PivotFolder, write_pivot
from lavibridge.pivot.half import Learning, write_half

CONFIG = {"slots": 5, "width": 8, "latents": 3, "language_heads": 2, "vision_heads": 2}
LANGUAGES, VISIONS = ("llama", "bert"), ("sd", "sd3")
LEARNING = Learning(teacher="a toy", captions=100, held_out=10, fvu=0.25)


def make_pivot(folder: Path, id: str) -> PivotFolder:
    """Write a pivot of two toys on each side, each named by its kind; SD3 takes a pooled vector.

    The weights depend on the id.
    """
    torch.manual_seed(len(id))
    config = Pivot.Config.model_validate(CONFIG)
    for kind in LANGUAGES:
        language = model_of_choice("language", {"kind": kind, "source": "random"})
        write_half(
            folder / "language" / kind, id, language, config, LanguageHalf(config, language.spec), LEARNING
        )
    for kind in VISIONS:
        vision = model_of_choice("vision", {"kind": kind, "source": "random"})
        write_half(folder / "vision" / kind, id, vision, config, VisionHalf(config, vision.spec), LEARNING)
    return write_pivot(folder, id, slots=config.slots, width=config.width, reference="llama")
