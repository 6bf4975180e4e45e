"""Runs the alignment stage: before the first training step, the connector learns from captions alone.

    captions --read once--> student's and teacher's features --> objective --> fvu --> connector

The objective decides what is compared (`lavibridge/alignment`, one file per kind). The teacher is the vision
model's own text encoder, or another bridge (`teacher.py`). Both language models stay frozen, so each caption
is read only once, and a text side without LoRA leaves memory before the first step if all its features are
cached. The language model's LoRA is disabled; it has no effect yet.

The stage measures the fvu of held-out captions every `measure_every` steps, and ends early when it no longer
falls. Captions, noise and latents are functions of the seed and the step, so an interrupted alignment resumes
bit for bit.
"""

import math
from contextlib import ExitStack
from time import perf_counter
from typing import Any

from lavibridge import lora
from lavibridge.core.log import JsonLog, progress_bar
from lavibridge.training.alignment.aligner import Aligner
from lavibridge.training.alignment.progress import AlignmentProgress
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.optimization import half_cosine, linear_warmup
from lavibridge.training.reporting.console import print_line
from lavibridge.training.run_folder import rewind_run_log
from lavibridge.training.signals import InterruptSignals


def run_alignment(
    aligner: Aligner, batches: BatchLoader, reached: AlignmentProgress, interrupted: InterruptSignals
) -> None:
    """Align in all processes, from the step that the run has reached, and log to `align.jsonl`.

    After a signal, saves the current step and ends the program.
    """
    path = reached.run / "align.jsonl"
    with ExitStack() as during:
        log = None
        if reached.is_main:
            rewind_run_log(path, reached.step)
            log = JsonLog(path)
            during.callback(log.close)
        if not align(aligner, batches, log, reached):
            where = f"saved step {reached.step}" if reached.step else "stopped before its first step"
            print_line(f"alignment: {where}; --resume continues from it")
            interrupted.leave()


def align(aligner: Aligner, batches: BatchLoader, log: JsonLog | None, reached: AlignmentProgress) -> bool:
    """Train the connector up to the last step of `training.align`, or until the time limit.

    Returns False if a signal stops it earlier; it then saves its progress, and captions that it has read stay
    on disk. Clips gradients and updates weights as the training loop does. Raises NotFiniteError if the loss
    is not finite.
    """
    settings, training, bridge = aligner.settings, aligner.training, aligner.bridge
    limit = math.inf if training.max_minutes is None else training.max_minutes * 60 * settings.max_time_share
    bridge.eval()  # no dropout: the loop sets its own mode
    optimizer = aligner.state.optimizer
    reached.restore(bridge.connector, optimizer)
    with ExitStack() as during:
        during.enter_context(lora.disable_adapters(bridge.language.backbone))
        if settings.teacher is None:  # another bridge may have trained LoRA in the vision model
            during.enter_context(lora.disable_adapters(bridge.vision.backbone))
        begun = perf_counter() - reached.seconds
        aligner.read_captions(reached.is_interrupted)
        if reached.stopped():
            return False
        aligner.prepare(batches)
        aligner.unload_text_sides()
        if reached.step == 0:
            aligner.solve()
            _record(aligner, log, reached, {"step": 0, "seconds": perf_counter() - begun})
        steps = settings.steps if aligner.method.takes_steps else 0
        bar = during.enter_context(progress_bar("steps"))
        task = bar.add_task("aligning", total=steps, completed=reached.step, status="")
        for step in range(reached.step, steps):
            done = max(step / steps, (perf_counter() - begun) / limit)
            # Processes may measure different values, but must leave together.
            if reached.any_process(done >= 1 or reached.is_exhausted(settings.patience)):
                break
            if reached.stopped():
                reached.save(bridge.connector, optimizer)
                return False
            rate = settings.lr * linear_warmup(step, settings.warmup) * half_cosine(done)
            fvu, norm = aligner.step(step, rate)
            record = {"step": step + 1, "fvu": fvu, "gradient_norm": {"connector": norm}}
            record |= {"lr": {"connector": rate}, "seconds": perf_counter() - begun}
            is_measured = (step + 1) % settings.measure_every == 0 or step + 1 == steps
            if is_measured:
                _record(aligner, log, reached, record)
            elif log is not None:
                log.write(record)
            reached.advance(perf_counter() - begun, bridge.connector, optimizer)
            shown = f", held out {reached.lowest:.3f}" if reached.lowest is not None else ""
            bar.update(task, completed=step + 1, status=f"fvu {fvu:.3f}{shown}")
    return True


def _record(
    aligner: Aligner, log: JsonLog | None, reached: AlignmentProgress, record: dict[str, Any]
) -> None:
    """Measure on the held-out captions, and log the measurement together with the step's record."""
    measured = aligner.measure() if aligner.captions.held_out else {}
    if "held_out_fvu" in measured:
        reached.note(measured["held_out_fvu"])
    if log is not None and (measured or "fvu" in record):
        log.write({**record, **measured})
