"""Checks before the first step that a run's checkpoints fit on the disk."""

import shutil
from pathlib import Path

from lavibridge.core.errors import RunError
from lavibridge.recipes.training_section import TrainingSection
from lavibridge.training.checkpoints.checkpoint import saved_checkpoints
from lavibridge.training.loop import TrainingState

_WEIGHTS_PER_MOMENTS = 2
"""AdamW stores two numbers for each trained weight; other optimisers store no more."""
MARGIN = 16 * 2**20
"""Bytes for the log, the sample images, and everything but the weights in a checkpoint."""


def check_disk_space(run: Path, state: TrainingState, settings: TrainingSection) -> None:
    """Raise RunError if the future checkpoints do not fit on the disk."""
    size, count = _checkpoint_bytes(state), _to_be_added(run, state, settings)
    needed = size * count + MARGIN
    place = next(folder for folder in (run, *run.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if count and free < needed:
        kept = settings.keep_checkpoints
        why = "the run keeps all" if kept is None else f"the run keeps {kept} while it writes the next"
        raise RunError(
            f"{place} has {_mib(free)} MiB of free disk, but this run needs {_mib(needed)}: "
            f"{count} checkpoints of {_mib(size)} ({why}). "
            "Free some space, lower training.keep_checkpoints, or choose another --out"
        )


def _checkpoint_bytes(state: TrainingState) -> int:
    """Estimate the size of one checkpoint: weights, average, and the optimiser's moments."""
    weights = sum(w.numel() * w.element_size() for part in state.parts.values() for w in part.values())
    return weights * (1 + (state.ema is not None) + _WEIGHTS_PER_MOMENTS)


def _to_be_added(run: Path, state: TrainingState, settings: TrainingSection) -> int:
    """The largest number of checkpoints that will exist at once, in addition to the present ones."""
    left = settings.steps - state.step
    if left <= 0:
        return 0
    every = settings.checkpoint_every
    to_come = 1 if not every else -(-left // every)
    if settings.keep_checkpoints is None:
        return to_come
    return min(to_come, max(1, settings.keep_checkpoints + 1 - len(saved_checkpoints(run))))


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f}"
