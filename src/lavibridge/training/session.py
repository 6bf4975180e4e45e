"""One session of a run: all that the loop and its events need, and what they do with it once in a while."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.checkpoints.checkpoint import checkpoints, save_checkpoint
from lavibridge.training.checkpoints.run_fingerprint import Basis
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.distributed.processes import Processes
from lavibridge.training.loop import State, is_sound
from lavibridge.training.nonfinite import check_weights, diverged
from lavibridge.training.reporting.console import say
from lavibridge.training.reporting.preview import draw_preview, preview_prompts
from lavibridge.training.reporting.trackers import Journal
from lavibridge.training.validation import Validator


@final
@dataclass(kw_only=True)
class Session:
    """A run at work in this process; what writes and draws is called in all processes at once."""

    run: Path
    recipe: Recipe
    processes: Processes
    dataset: Dataset
    basis: Basis
    state: State
    batches: BatchLoader
    validator: Validator | None
    journal: Journal | None = None
    """Where records go while the loop runs, in the main process."""
    saved_at: int = field(init=False)
    """The step of the newest checkpoint; -1 without any."""

    def __post_init__(self) -> None:
        self.saved_at = self.state.step if checkpoints(self.run) else -1
        self.prompts = preview_prompts(self.recipe.preview, self.dataset)

    @property
    def is_shared(self) -> bool:
        """Whether using the model takes all processes."""
        return self.recipe.training.sharding is not None

    def save(self) -> None:
        """Write a checkpoint, if there is none of this step.

        No process goes on, or ends, before it is whole, and all of them fail where it fails. Weights that
        have diverged are never written: NotFiniteError, and the checkpoints before stay.
        """
        if self.saved_at == self.state.step:
            return
        state, keep = self.state, self.recipe.training.keep_checkpoints
        check_weights(state.parts, state.optimizer, state.step)
        if not is_sound(state):
            what = "give no finite loss or gradient to pictures that had one before"
            raise diverged(
                [part for part, weights in state.parts.items() if weights], state.optimizer, state.step, what
            )
        self.processes.by_main(
            lambda: say(f"checkpoint: {save_checkpoint(self.run, state, self.basis, keep)}")
        )
        self.saved_at = self.state.step

    def preview(self) -> None:
        """Draw sample pictures."""
        if self.processes.is_main or self.is_shared:
            folder = self.run if self.processes.is_main else None
            draw_preview(self.state, self.recipe.preview, self.prompts, folder)

    def validate(self) -> None:
        """Measure on held-out pictures, where some are."""
        if self.validator is not None:
            measured = self.validator.measure(self.state)
            if self.journal is not None:
                self.journal.write(measured)
