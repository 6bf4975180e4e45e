"""One session of a run: the parts that the loop uses, and its checkpoints, previews and validation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.checkpoints.checkpoint import save_checkpoint, saved_checkpoints
from lavibridge.training.checkpoints.run_fingerprint import RunFingerprint
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.distributed.processes import Processes
from lavibridge.training.loop import TrainingState, is_model_finite
from lavibridge.training.nonfinite import check_weights_finite, nonfinite_error
from lavibridge.training.reporting.console import print_line
from lavibridge.training.reporting.preview import draw_preview, preview_prompts
from lavibridge.training.reporting.trackers import Journal
from lavibridge.training.validation import Validator


@final
@dataclass(kw_only=True)
class Session:
    """A session in this process; all processes call its methods together."""

    run: Path
    recipe: Recipe
    processes: Processes
    dataset: Dataset
    fingerprint: RunFingerprint
    state: TrainingState
    batches: BatchLoader
    validator: Validator | None
    journal: Journal | None = None
    """The main process's log and trackers while the loop runs."""
    saved_at: int = field(init=False)
    """The step of the newest checkpoint; -1 if there is none."""
    has_unloaded: bool = field(init=False, default=False)
    """Whether this session has unloaded the language model before."""

    def __post_init__(self) -> None:
        self.saved_at = self.state.step if saved_checkpoints(self.run) else -1
        self.prompts = preview_prompts(self.recipe.preview, self.dataset)

    @property
    def is_shared(self) -> bool:
        """Whether a call of the model needs all processes."""
        return self.recipe.training.sharding is not None

    def save(self) -> None:
        """Write a checkpoint, unless there is already one of this step.

        All processes wait until it is complete, and all fail if it fails. Raises NotFiniteError, and writes
        nothing, if the weights have diverged; earlier checkpoints stay.
        """
        if self.saved_at == self.state.step:
            return
        state, keep = self.state, self.recipe.training.keep_checkpoints
        check_weights_finite(state.parts, state.optimizer, state.step)
        if not is_model_finite(state):
            what = "no longer give a finite loss and gradient for samples that had one"
            raise nonfinite_error(
                [part for part, weights in state.parts.items() if weights], state.optimizer, state.step, what
            )
        self.processes.by_main(
            lambda: print_line(f"checkpoint: {save_checkpoint(self.run, state, self.fingerprint, keep)}")
        )
        self.saved_at = self.state.step

    def preview(self) -> None:
        """Generate the sample images."""
        if self.processes.is_main or self.is_shared:
            folder = self.run if self.processes.is_main else None
            draw_preview(self.state, self.recipe.preview, self.prompts, folder)
        self.unload_language_model()

    def validate(self) -> None:
        """Measure the loss on held-out samples, if there are any."""
        if self.validator is not None:
            measured = self.validator.measure(self.state)
            if self.journal is not None:
                self.journal.write(measured)
        self.unload_language_model()

    def unload_language_model(self) -> None:
        """Unload the language model if the features of all captions are cached."""
        unloader = self.batches.caches.unloader
        freed = 0 if unloader is None else unloader()
        if freed and not self.has_unloaded and self.processes.is_main:
            print_line(
                "the features of all captions are cached, so the language model leaves memory "
                f"({freed / 2**30:.2f} GiB); previews and validation load it again"
            )
        self.has_unloaded = self.has_unloaded or bool(freed)
