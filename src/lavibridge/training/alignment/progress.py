"""The progress of an alignment, and the file from which it resumes.

RUN/align.safetensors    the connector and the optimiser's state; its header has step, seconds, fingerprint

Captions, noise and queries are functions of the seed and the step, so an alignment resumes bit for bit. The
file is written atomically, and removed once the checkpoint of step 0 exists.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from torch import nn

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import parse_json
from lavibridge.core.safetensors_file import load_tensors, read_safetensors_header
from lavibridge.core.tensors import check_tensors_fit, save_tensors
from lavibridge.training.checkpoints.run_fingerprint import RunFingerprint, fingerprint_differences
from lavibridge.training.distributed.processes import Processes
from lavibridge.training.optimization import load_optimizer_tensors, optimizer_tensors
from lavibridge.training.reporting.console import print_line
from lavibridge.training.run_folder import refuse_recipe_changes
from lavibridge.training.signals import InterruptSignals

NAME = "align.safetensors"
WEIGHTS, MOMENTS = "connector.", "moments."


@final
@dataclass(kw_only=True)
class AlignmentProgress:
    """The step that an alignment has reached; saves and restores it."""

    run: Path
    basis: RunFingerprint
    every: int
    """Steps between two saves; with 0, only a signal leads to a save."""
    stopped: Callable[[], bool]
    """Whether a signal has arrived, in any process."""
    is_interrupted: Callable[[], bool]
    """Whether a signal has arrived in this process; does not wait for the others."""
    any_process: Callable[[bool], bool]
    """Whether the value is True in any process, so that all processes decide alike."""
    is_main: bool
    step: int = 0
    seconds: float = 0.0
    """Duration of the alignment, with reading and earlier sessions."""
    lowest: float | None = None
    """The lowest held-out fvu so far."""
    since_lowest: int = 0
    """Number of measurements since then."""

    @staticmethod
    def begin(
        run: Path,
        fingerprint: RunFingerprint,
        every: int,
        processes: Processes,
        interrupted: InterruptSignals,
    ) -> "AlignmentProgress":
        """Read the progress of the alignment in a folder, and print it. Raises RunError as `read` does."""
        reached = AlignmentProgress(
            run=run,
            basis=fingerprint,
            every=every,
            stopped=lambda: interrupted.share(processes.largest),
            is_interrupted=lambda: interrupted.by is not None,
            any_process=processes.any,
            is_main=processes.is_main,
        )
        if reached.read():
            print_line(f"alignment: resuming from step {reached.step}")
        return reached

    @property
    def path(self) -> Path:
        """The file that an interrupted alignment leaves."""
        return self.run / NAME

    def read(self) -> int:
        """Read the step that an earlier session reached, or 0.

        Raises RunError if its data or models differ, or if the file is damaged.
        """
        if not self.path.is_file():
            return 0
        damaged = RunError(f"{self.path} is damaged: delete it to start the alignment again")
        try:
            header = parse_json(read_safetensors_header(self.path).metadata["reached"], str(self.path))
        except (LaviError, KeyError) as error:
            raise damaged from error
        try:
            refuse_recipe_changes(self.run, fingerprint_differences(header["basis"], self.basis))
            self.step, self.seconds = int(header["step"]), float(header["seconds"])
            self.lowest, self.since_lowest = header["lowest"], int(header["since_lowest"])
        except (KeyError, TypeError, ValueError) as error:
            raise damaged from error
        return self.step

    def restore(self, connector: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Restore the state that `save` wrote, if there is a file."""
        if self.read() == 0:
            return
        kept = load_tensors(self.path)
        weights = _below(WEIGHTS, kept)
        check_tensors_fit(connector.state_dict(), weights, f"the connector in {self.path}")
        connector.load_state_dict(weights)
        load_optimizer_tensors(optimizer, _parts(connector), _below(MOMENTS, kept))

    def note(self, held_out_fvu: float) -> None:
        """Record a measurement on the held-out captions."""
        is_lower = self.lowest is None or held_out_fvu < self.lowest
        self.lowest = held_out_fvu if is_lower else self.lowest
        self.since_lowest = 0 if is_lower else self.since_lowest + 1

    def is_exhausted(self, patience: int | None) -> bool:
        """Whether the held-out fvu has not fallen for ``patience`` measurements."""
        return patience is not None and self.since_lowest >= patience

    def advance(self, seconds: float, connector: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Count a step that ended after ``seconds``; saves after every `every` steps."""
        self.step, self.seconds = self.step + 1, seconds
        if self.every and self.step % self.every == 0:
            self.save(connector, optimizer)

    def save(self, connector: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write step, connector and optimiser; only the main process writes. Raises RunError if it cannot."""
        if not self.is_main or self.step == 0:
            return
        weights = {f"{WEIGHTS}{name}": value for name, value in connector.state_dict().items()}
        moments = optimizer_tensors(optimizer, _parts(connector))
        header = {
            "step": self.step,
            "seconds": self.seconds,
            "lowest": self.lowest,
            "since_lowest": self.since_lowest,
            "basis": asdict(self.basis),
        }
        try:
            save_tensors(
                {**weights, **{f"{MOMENTS}{name}": value for name, value in moments.items()}},
                self.path,
                {"reached": json.dumps(header)},
            )
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error.strerror or error}: free some disk space"
            ) from error

    def remove(self) -> None:
        """Remove the file: the checkpoint of step 0 replaces it."""
        if self.is_main:
            self.path.unlink(missing_ok=True)


def _parts(connector: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    return {
        "connector": {name: weight for name, weight in connector.named_parameters() if weight.requires_grad}
    }


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
