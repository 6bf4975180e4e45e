"""Names the pretrainings and runs one: `lavi world pretrain NAME [--from MODEL]`.

OUT/work/     the run: newest state, position, log.jsonl with the scores along the way
OUT/model/    the model folder, written at the end: copy it to where shipped models lie to ship it
"""

from importlib import import_module
from pathlib import Path

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import models_folder, read_json, shipped_models
from lavibridge.core.lock import hold
from lavibridge.core.log import console
from lavibridge.zoo import pretraining
from lavibridge.zoo.pretraining import MADE, Pretraining

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
    "mini-sd3": ("sd3", "StableDiffusion3Pretraining"),
}
"""Module and class of each; the image models read the shipped mini-sd/vae, mini-clip and mini-t5-base, and
mini-sd3 the text tower of mini-sd."""


def kind_of(name: str) -> type[Pretraining]:
    """The pretraining of that name; calling it makes its data. Raises RecipeError for a name that is none."""
    if name not in JOBS:
        raise RecipeError(
            f"there is no pretraining '{name}'{did_you_mean(name, tuple(JOBS))} (there are {', '.join(JOBS)})"
        )
    module, kind = JOBS[name]
    found: type[Pretraining] = getattr(import_module(f"lavibridge.zoo.{module}"), kind)
    return found


def pretrain(
    name: str, out: Path, *, resume: bool = False, steps: int | None = None, begin: str | None = None
) -> Path:
    """Make a shipped model, or go on with the one in a folder, and return the folder that was made.

    `begin` is a shipped model's name or a folder that this function made; `steps` counts from the first step
    of all. A run that has its steps already is exported as it stands.

    Raises RecipeError for a name that is none, and RunError when `out` holds a run and `resume` is not set,
    when another process writes into it, or when `begin` is no folder to go on from or has its steps already.
    """
    with hold(out):
        return _pretrain(name, out / "work", out / "model", resume, steps, begin)


def _pretrain(name: str, work: Path, model: Path, resume: bool, steps: int | None, begin: str | None) -> Path:
    if (work / "position.json").exists() and not resume:
        raise RunError(
            f"{work.parent} holds a pretraining already: add --resume to go on, or choose another --out"
        )
    kind = kind_of(name)
    start = None if begin is None else begun_from(begin)
    done, last = 0 if start is None else read_json(start / MADE)["steps"], steps or kind.steps
    if start is not None and done >= last:
        raise RunError(f"{start} has {done} steps, and {last} are asked for: ask for more by --steps")
    job = kind()
    scores = pretraining.pretrain(job, work, steps=steps, begin=start)
    console.print("  ".join(f"{key} {value:.3f}" for key, value in scores.items()))
    pretraining.export(job, work, model)
    return model


def begun_from(name: str) -> Path:
    """The folder to go on from. Raises RunError where it does not say how many steps it has."""
    folder = models_folder() / name if name in shipped_models() else Path(name)
    if not (folder / MADE).is_file():
        raise RunError(
            f"--from: {folder} has no {MADE}: give a shipped model's name ({', '.join(shipped_models())}) or "
            "a folder that `lavi world pretrain` has made"
        )
    return folder
