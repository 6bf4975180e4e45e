"""Lists the pretraining jobs and runs one: `lavi world pretrain NAME [--from MODEL]`.

OUT/work/     the run: newest state, position, and log.jsonl with losses and scores
OUT/model/    the model folder, written at the end; to ship it, copy it into world/models
"""

from importlib import import_module
from pathlib import Path

from lavibridge.core.errors import RecipeError, RunError, did_you_mean
from lavibridge.core.files import read_json, shipped_models
from lavibridge.core.lock import hold_lock
from lavibridge.core.log import console
from lavibridge.core.paths import models_folder
from lavibridge.zoo import pretraining
from lavibridge.zoo.pretraining import RECORD_FILE, Pretraining

PRETRAINING_JOBS: dict[str, tuple[str, str]] = {
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
"""Module and class of each job. The image models load the shipped mini-sd/vae, mini-clip and mini-t5-base;
mini-sd3 also loads the text tower of mini-sd."""


def _pretraining_class(name: str) -> type[Pretraining]:
    """Return the pretraining class of that name. Raises RecipeError for an unknown name."""
    if name not in PRETRAINING_JOBS:
        raise RecipeError(
            f"there is no pretraining '{name}'{did_you_mean(name, tuple(PRETRAINING_JOBS))} (there are "
            f"{', '.join(PRETRAINING_JOBS)})"
        )
    module, kind = PRETRAINING_JOBS[name]
    found: type[Pretraining] = getattr(import_module(f"lavibridge.zoo.{module}"), kind)
    return found


def pretrain_miniature(
    name: str, out: Path, *, resume: bool = False, steps: int | None = None, init_from: str | None = None
) -> Path:
    """Pretrain a shipped model, or continue from an exported one, and return the exported model folder.

    `init_from` is a shipped model's name or a folder that this function wrote. `steps` is the total,
    including the steps that `init_from` has already taken. A finished run is only exported again.

    Raises RecipeError for an unknown name. Raises RunError if `out` holds a run and `resume` is not set, if
    another process writes into `out`, or if `init_from` has no record or has taken all steps already.
    """
    with hold_lock(out):
        return _pretrain(name, out / "work", out / "model", resume, steps, init_from)


def _pretrain(
    name: str, work: Path, model: Path, resume: bool, steps: int | None, init_from: str | None
) -> Path:
    if (work / "position.json").exists() and not resume:
        raise RunError(
            f"{work.parent} already holds a pretraining: add --resume to continue it, or choose another --out"
        )
    kind = _pretraining_class(name)
    start = None if init_from is None else _resolve_initial_folder(init_from)
    done, last = 0 if start is None else read_json(start / RECORD_FILE)["steps"], steps or kind.steps
    if start is not None and done >= last:
        raise RunError(f"{start} has {done} steps, and --steps is {last}: set a larger number")
    job = kind()
    scores = pretraining.run_pretraining(job, work, steps=steps, init_from=start)
    console.print("  ".join(f"{key} {value:.3f}" for key, value in scores.items()))
    pretraining.export_pretraining(job, work, model)
    return model


def _resolve_initial_folder(name: str) -> Path:
    """Return the folder to continue from. Raises RunError if it has no record of its steps."""
    folder = models_folder() / name if name in shipped_models() else Path(name)
    if not (folder / RECORD_FILE).is_file():
        raise RunError(
            f"--from: {folder} has no {RECORD_FILE}: give a shipped model's name "
            f"({', '.join(shipped_models())}) or a folder that `lavi world pretrain` wrote"
        )
    return folder
