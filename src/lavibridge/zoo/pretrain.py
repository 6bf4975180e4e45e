"""Names the pretrainings and runs one: `lavi world pretrain NAME`.

OUT/work/     the run: newest state, position, log.jsonl with the scores along the way
OUT/model/    the model folder, written at the end: copy it to where shipped models lie to ship it
"""

from collections.abc import Callable
from pathlib import Path

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.log import console
from lavibridge.zoo import pretraining
from lavibridge.zoo.pretraining import Pretraining


def _vae() -> Pretraining:
    from lavibridge.zoo.autoencoder import AutoencoderPretraining

    return AutoencoderPretraining()


def _clip() -> Pretraining:
    from lavibridge.zoo.clip import ClipPretraining

    return ClipPretraining()


def _llama() -> Pretraining:
    from lavibridge.zoo.llama import LlamaPretraining

    return LlamaPretraining()


def _sd() -> Pretraining:
    from lavibridge.zoo.stable_diffusion import StableDiffusionPretraining

    return StableDiffusionPretraining()


JOBS: dict[str, Callable[[], Pretraining]] = {
    "mini-vae": _vae,
    "mini-clip": _clip,
    "mini-llama": _llama,
    "mini-sd": _sd,
}
"""In the order in which they build on each other: mini-sd reads the shipped mini-sd/vae and mini-clip."""


def pretrain(name: str, out: Path, *, resume: bool = False, steps: int | None = None) -> Path:
    """Make a shipped model again and return its folder.

    Raises RecipeError for a name that is none, and RunError when `out` holds a run and `resume` is not set.
    """
    if name not in JOBS:
        raise RecipeError(
            f"there is no pretraining '{name}'{did_you_mean(name, tuple(JOBS))} (there are {', '.join(JOBS)})"
        )
    work, model = out / "work", out / "model"
    if (work / "position.json").exists() and not resume:
        raise RunError(f"{out} holds a pretraining already: add --resume to go on, or choose another --out")
    job = JOBS[name]()
    scores = pretraining.pretrain(job, work, steps=steps)
    console.print("  ".join(f"{key} {value:.3f}" for key, value in scores.items()), markup=False)
    pretraining.export(job, work, model)
    return model
