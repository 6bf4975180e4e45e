"""An alignment that is not finished: what it is at one moment, and the file from which it goes on.

RUN/align.safetensors    the connector, its optimiser's moments; in the header step, seconds and basis

Captions, noise and queries are functions of the seed and the step, so that an alignment goes on bit for bit.
The file is written whole or not at all, and goes when the checkpoint of step 0 is there.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lavibridge.core.errors import RunError
from lavibridge.core.tensors import save_tensors
from lavibridge.training.checkpoints.run_fingerprint import Basis, differences
from lavibridge.training.optim import load_optimizer_tensors, optimizer_tensors
from lavibridge.training.run import refuse_changes

NAME = "align.safetensors"
WEIGHTS, MOMENTS = "connector.", "moments."


@final
@dataclass(kw_only=True)
class Unfinished:
    """How far an alignment is, and when it is kept."""

    run: Path
    basis: Basis
    every: int
    """Steps between two writings; 0 writes only where it is stopped."""
    stopped: Callable[[], bool]
    """Whether a signal has come, in any process."""
    any_process: Callable[[bool], bool]
    """Whether it is so in any process: all of them must decide alike."""
    is_main: bool
    step: int = 0
    seconds: float = 0.0
    """Spent in its steps, earlier sessions included."""

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return self.run / NAME

    def look(self) -> int:
        """The step that an earlier session has reached; 0 where there was none. RunError where it differs."""
        if not self.path.is_file():
            return 0
        try:
            with safe_open(str(self.path), "pt") as file:
                told = json.loads(file.metadata()["reached"])
            refuse_changes(self.run, differences(told["basis"], self.basis))
            self.step, self.seconds = int(told["step"]), float(told["seconds"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.path} is damaged: delete it, and the alignment begins anew") from error
        return self.step

    def restore(self, connector: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put back what `keep` wrote, where there is something."""
        if self.look() == 0:
            return
        with safe_open(str(self.path), "pt") as file:
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        connector.load_state_dict(_below(WEIGHTS, kept))
        load_optimizer_tensors(optimizer, _parts(connector), _below(MOMENTS, kept))

    def pass_step(self, seconds: float, connector: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Count a step, after which so many seconds are spent; it is kept once in a while."""
        self.step, self.seconds = self.step + 1, seconds
        if self.every and self.step % self.every == 0:
            self.keep(connector, optimizer)

    def keep(self, connector: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write down how far it is."""
        if not self.is_main or self.step == 0:
            return
        weights = {f"{WEIGHTS}{name}": value for name, value in connector.state_dict().items()}
        moments = optimizer_tensors(optimizer, _parts(connector))
        told = {"step": self.step, "seconds": self.seconds, "basis": asdict(self.basis)}
        try:
            save_tensors(
                {**weights, **{f"{MOMENTS}{name}": value for name, value in moments.items()}},
                self.path,
                {"reached": json.dumps(told)},
            )
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error.strerror or error}; make room") from error

    def done(self) -> None:
        """The checkpoint of step 0 is there."""
        if self.is_main:
            self.path.unlink(missing_ok=True)


def _parts(connector: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    return {
        "connector": {name: weight for name, weight in connector.named_parameters() if weight.requires_grad}
    }


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
