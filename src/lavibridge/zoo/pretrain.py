"""Names the pretrainings and runs one: `lavi world pretrain NAME`.

OUT/work/     the run: newest state, position, log.jsonl with the scores along the way
OUT/model/    the model folder, written at the end: copy it to where shipped models lie to ship it
"""

from importlib import import_module
from pathlib import Path

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.lock import hold
from lavibridge.core.log import console
from lavibridge.zoo import pretraining
from lavibridge.zoo.pretraining import Pretraining

JOBS: dict[str, tuple[str, str]] = {
    "mini-vae": ("autoencoder", "AutoencoderPretraining"),
    "mini-clip": ("clip", "ClipPretraining"),
    "mini-t5-small": ("t5", "T5SmallPretraining"),
    "mini-t5-base": ("t5", "T5BasePretraining"),
    "mini-t5-large": ("t5", "T5LargePretraining"),
    "mini-bert": ("bert", "BertPretraining"),
    "mini-llama": ("llama", "LlamaPretraining"),
    "mini-resnet": ("classifier", "ClassifierPretraining"),
    "mini-sd": ("stable_diffusion", "StableDiffusionPretraining"),
    "mini-ldm": ("ldm", "LatentDiffusionBertPretraining"),
    "mini-pixart": ("pixart", "PixArtPretraining"),
}
"""Module and class of each; the image models read the shipped mini-sd/vae, mini-clip and mini-t5-base."""


def make(name: str) -> Pretraining:
    """The pretraining of that name, with its data made. Raises RecipeError for a name that is none."""
    if name not in JOBS:
        raise RecipeError(
            f"there is no pretraining '{name}'{did_you_mean(name, tuple(JOBS))} (there are {', '.join(JOBS)})"
        )
    module, kind = JOBS[name]
    job: Pretraining = getattr(import_module(f"lavibridge.zoo.{module}"), kind)()
    return job


def pretrain(name: str, out: Path, *, resume: bool = False, steps: int | None = None) -> Path:
    """Make a shipped model again and return its folder.

    Raises RecipeError for a name that is none, and RunError when `out` holds a run and `resume` is not set or
    another process writes into it.
    """
    with hold(out):
        return _pretrain(name, out / "work", out / "model", resume, steps)


def _pretrain(name: str, work: Path, model: Path, resume: bool, steps: int | None) -> Path:
    if (work / "position.json").exists() and not resume:
        raise RunError(
            f"{work.parent} holds a pretraining already: add --resume to go on, or choose another --out"
        )
    job = make(name)
    scores = pretraining.pretrain(job, work, steps=steps)
    console.print("  ".join(f"{key} {value:.3f}" for key, value in scores.items()), markup=False)
    pretraining.export(job, work, model)
    return model
