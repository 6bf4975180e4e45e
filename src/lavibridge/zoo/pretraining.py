"""One resumable loop that pretrains any of the miniature models.

All randomness in step k is a function of (seed, k), so a stopped and resumed run sees the same batches. The
learning rate rises for `_WARMUP` steps, stays constant, and falls linearly to zero over the last `_DECAY` of
the steps; the exported weights are an exponential moving average. A job can also continue from an exported
folder with fresh optimiser states: then the schedule covers the additional steps.
"""

import math
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lavibridge.core.device import cpu_computes_bfloat16, set_threads
from lavibridge.core.errors import RunError
from lavibridge.core.files import read_json, write_json
from lavibridge.core.log import JsonLog, console, progress_bar
from lavibridge.core.tensors import check_tensors_finite
from lavibridge.optimizers.muon import Muon

RECORD_FILE = "pretraining.json"
"""The file of an exported folder that records how it was trained."""
_WARMUP = 100
_DECAY = 0.3
_EMA_HALF_LIFE = 100
"""Steps after which a past weight counts half in the average."""


class Pretraining(ABC):
    """The part of a model in the loop: its networks, its loss, its scores, its folder."""

    name: str
    steps: int
    batch: int
    lr: float
    seed: int = 0

    networks: nn.ModuleDict
    """The trained networks; everything else that the loss needs stays outside."""
    muon_lr: float = 0.0
    """Learning rate of `matrices`."""
    bfloat16: bool = False
    """Whether to multiply in bfloat16 if the CPU supports it natively."""

    def matrices(self) -> list[nn.Parameter]:
        """Return the weight matrices that Muon trains; AdamW trains the rest, by default everything."""
        return []

    @abstractmethod
    def loss(self, step: int) -> Tensor:
        """Return the scalar loss of the step's batch, a pure function of (weights, seed, step)."""

    @abstractmethod
    def scores(self) -> dict[str, float]:
        """Return a few quality measures; the loop calls it with averaged weights, in eval mode."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the published folder layout in float16; the loop calls it with averaged weights, in eval
        mode."""

    def restore(self, folder: Path) -> None:
        """Load the weights of an exported folder. Raises RunError if the job cannot continue from one."""
        raise RunError(
            f"{self.name} cannot continue from a folder: train it from scratch, without --from {folder}"
        )


def run_pretraining(
    job: Pretraining,
    work: Path,
    *,
    steps: int | None = None,
    init_from: Path | None = None,
    every_minutes: float = 3.0,
    score_minutes: float = 10.0,
) -> dict[str, float]:
    """Run a job to its last step, from its newest checkpoint under `work` if there is one.

    Without a checkpoint, starts from the weights and the step of the exported folder `init_from`, or from
    random weights. Saves the state before it returns or raises, also after Ctrl-C or a non-finite loss.
    Returns the scores.
    """
    set_threads()
    last = steps or job.steps
    run = _Run(job, work, init_from)
    log = JsonLog(work / "log.jsonl")
    try:
        _advance(run, last, log, 60 * every_minutes, 60 * score_minutes)
        found = run.averaged_scores()
        log.write({"step": run.step, "scores": found})
    finally:
        run.save()
        log.close()
    return found


def _advance(run: "_Run", last: int, log: JsonLog, save_seconds: float, score_seconds: float) -> None:
    """Take steps until the last, with checkpoints and scores along the way."""
    saved = scored = time.monotonic()
    smooth: float | None = None
    with progress_bar("steps") as bar:
        task = bar.add_task(f"pretrain {run.job.name}", total=last, completed=run.step, status="")
        while run.step < last:
            value = run.advance(last)
            smooth = value if smooth is None else 0.98 * smooth + 0.02 * value
            bar.update(task, completed=run.step, status=f"loss {smooth:.4f}")
            now = time.monotonic()
            if run.step % 50 == 0:
                log.write({"step": run.step, "loss": smooth, "seconds": run.seconds})
            if now - saved > save_seconds:
                run.save()
                saved = time.monotonic()
            if now - scored > score_seconds and run.step < last:
                found = run.averaged_scores()
                log.write({"step": run.step, "scores": found})
                console.print(f"step {run.step}: " + "  ".join(f"{k} {v:.3f}" for k, v in found.items()))
                scored = time.monotonic()


def export_pretraining(job: Pretraining, work: Path, folder: Path) -> None:
    """Write the averaged weights of the newest checkpoint under `work` as a model folder."""
    run = _Run(job, work)
    run.use_average()
    job.networks.eval()
    folder.mkdir(parents=True, exist_ok=True)
    job.export(folder)
    made = {
        "name": job.name,
        "parameters": sum(
            p.numel() for name, p in job.networks.named_parameters() if "questions" not in name
        ),
        "steps": run.step,
        "batch": job.batch,
        "lr": job.lr,
        "seed": job.seed,
        "cpu_hours": round(run.cpu_seconds / 3600, 2),
    }
    write_json(folder / RECORD_FILE, made)


class _Run:
    """The state of a pretraining: optimisers, average, position."""

    def __init__(self, job: Pretraining, work: Path, init_from: Path | None = None) -> None:
        self.job, self.work = job, work
        self.begun, self.step, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0
        is_resumed = (work / "position.json").exists()
        if init_from is not None and not is_resumed:
            job.restore(init_from)
            made = read_json(init_from / RECORD_FILE)
            self.begun = self.step = made["steps"]
            self.cpu_seconds = 3600 * made["cpu_hours"]
        self.parameters = [p for p in job.networks.parameters() if p.requires_grad]
        matrices = job.matrices()
        rest = [p for p in self.parameters if all(p is not matrix for matrix in matrices)]
        self.optimizers: dict[str, tuple[torch.optim.Optimizer, float]] = {
            "optimizer": (
                torch.optim.AdamW(rest, lr=job.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True),
                job.lr,
            )
        }
        if matrices:
            self.optimizers["muon"] = (Muon(matrices, lr=job.muon_lr), job.muon_lr)
        self.average = [p.detach().clone() for p in self.parameters]
        work.mkdir(parents=True, exist_ok=True)
        if is_resumed:
            self._load()

    def advance(self, last: int) -> float:
        """Take one optimiser step and return its loss."""
        started, cpu = time.monotonic(), time.process_time()
        torch.manual_seed(self.job.seed * 1_000_003 + self.step)
        self.job.networks.train()
        with self._rounded():
            loss = self.job.loss(self.step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss of {self.job.name} is {value} at step {self.step}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, lr in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr * _schedule(self.step - self.begun, last - self.begun)
            with self._rounded():
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        taken = self.step - self.begun
        keep = min(0.5 ** (1 / _EMA_HALF_LIFE), (1 + taken) / (10 + taken))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
        self.seconds += time.monotonic() - started
        self.cpu_seconds += time.process_time() - cpu
        return value

    def _rounded(self) -> ExitStack:
        """Return a context that computes in bfloat16 if the job asks for it, with attention outside its fused
        kernel, whose backward pass took six times as long in bfloat16 with heads 36 wide (LOG.md,
        2026-11-22)."""
        stack = ExitStack()
        if self.job.bfloat16 and cpu_computes_bfloat16():
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        return stack

    def use_average(self) -> None:
        """Copy the averaged weights into the networks."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            parameter.data.copy_(average)

    def averaged_scores(self) -> dict[str, float]:
        """Return the job's scores with averaged weights, and restore the trained weights afterwards."""
        trained = [p.detach().clone() for p in self.parameters]
        self.use_average()
        self.job.networks.eval()
        with torch.no_grad():
            found = self.job.scores()
        for parameter, value in zip(self.parameters, trained, strict=True):
            parameter.data.copy_(value)
        return found

    def save(self) -> None:
        """Write the state, then the position, which names its file, so that an interrupted save has no
        effect.

        Raises ModelError, and keeps the previous state, if the weights are not finite.
        """
        check_tensors_finite(
            self.job.networks.state_dict(), f"the networks of {self.job.name} at step {self.step}"
        )
        name = f"state-{self.step}.pt"
        state = {
            "networks": self.job.networks.state_dict(),
            **{name: optimizer.state_dict() for name, (optimizer, _) in self.optimizers.items()},
            "average": self.average,
        }
        torch.save(state, self.work / name)
        position = {
            "step": self.step,
            "begun": self.begun,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "state": name,
        }
        write_json(self.work / "position.json", position)
        for old in self.work.glob("state-*.pt"):
            if old.name != name:
                old.unlink()

    def _load(self) -> None:
        position = read_json(self.work / "position.json")
        state = torch.load(self.work / position["state"], weights_only=True)
        check_tensors_finite(state["networks"], f"the networks in {self.work / position['state']}")
        try:
            self.job.networks.load_state_dict(state["networks"])
        except RuntimeError as error:
            raise RunError(
                f"{self.work} holds the state of another network, of an earlier version of this job "
                f"or of the world's text: move it away to start again ({str(error).splitlines()[-1].strip()})"
            ) from None
        for name, (optimizer, _) in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        for average, value in zip(self.average, state["average"], strict=True):
            average.copy_(value)
        self.begun = position.get("begun", 0)
        self.step, self.seconds = position["step"], position["seconds"]
        self.cpu_seconds = position["cpu_seconds"]


def _schedule(step: int, last: int) -> float:
    return min(1.0, (step + 1) / _WARMUP, max(0.0, (last - step) / (_DECAY * last)))
