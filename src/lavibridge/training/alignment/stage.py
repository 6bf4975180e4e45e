"""Alignment as a stage of training: before the first step, the connector learns from captions alone.

    captions --read once--> features of both text sides --> objective --> fvu --> connector, nothing else

What is compared is the objective (`lavibridge/alignment`, one file per kind); the teacher is the vision
model's own text encoder, or another bridge (`teacher.py`). Both text sides stay frozen, so each
caption is read once; the LoRA of the language model, which adds nothing yet, is disabled.

The fvu of held-out captions is measured every `measure_every` steps and ends the stage early when it no
longer falls. Captions, noise and latents are functions of the seed and the step, so an alignment that was
stopped continues bit for bit.
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
    """Align in all processes, from where the run's folder stands, and log the steps to `align.jsonl`.

    After a signal it saves the step that it has reached and ends the program.
    """
    path = reached.run / "align.jsonl"
    with ExitStack() as during:
        log = None
        if reached.is_main:
            rewind_run_log(path, reached.step)
            log = JsonLog(path)
            during.callback(log.close)
        if not align(aligner, batches, log, reached):
            done = f"step {reached.step} is saved" if reached.step else "it stopped before its first step"
            print_line(f"alignment: {done}; --resume continues from there")
            interrupted.leave()


def align(aligner: Aligner, batches: BatchLoader, log: JsonLog | None, reached: AlignmentProgress) -> bool:
    """Train the connector from where it is to the last step of `training.align`, or until its time is up.

    Returns False if a signal stops it before; `reached` is saved then, and of captions that are being read,
    those on disk stay. Clipping and weight updates are those of the training loop. Raises NotFiniteError if
    the loss is not finite.
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
        if reached.step == 0:
            aligner.solve()
            _record(aligner, log, reached, {"step": 0, "seconds": perf_counter() - begun})
        steps = settings.steps if aligner.method.takes_steps else 0
        bar = during.enter_context(progress_bar("steps"))
        task = bar.add_task("aligning", total=steps, completed=reached.step, status="")
        for step in range(reached.step, steps):
            done = max(step / steps, (perf_counter() - begun) / limit)
            # Processes may measure differently, and must leave together.
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
    """Measure on the held-out captions, and write the measurement beside the step's own record."""
    measured = aligner.measure() if aligner.captions.held_out else {}
    if "held_out_fvu" in measured:
        reached.note(measured["held_out_fvu"])
    if log is not None and (measured or "fvu" in record):
        log.write({**record, **measured})
