"""Train a recipe into a run folder: builds everything, hands it to the loop, and leaves a checkpoint behind.

The one place that knows Accelerate (devices, bf16, several processes through `accelerate launch`). What is
wrong is found from the cheap to the dear: folder, data, models, and only then the first step.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_device, set_threads
from lavibridge.core.errors import NotFiniteError
from lavibridge.core.log import JsonLog, console, progress
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of
from lavibridge.recipes.training import Training
from lavibridge.training.align import align
from lavibridge.training.batches import Batches, ReadAhead
from lavibridge.training.build import build_bridge, calibrate, scale_note
from lavibridge.training.checkpoint import checkpoints, load_checkpoint, prune, save_checkpoint
from lavibridge.training.ema import Ema
from lavibridge.training.events import Every
from lavibridge.training.loop import Event, State, fit
from lavibridge.training.metrics import LogSteps, ShowProgress
from lavibridge.training.optim import make_optimizer, published_rates
from lavibridge.training.preview import draw_preview, preview_prompts
from lavibridge.training.run import check_run, note_run, say_trained
from lavibridge.training.signals import Interrupted, watch

CAPTIONS_LOOKED_AT = 1000
CAPTIONS_SCALED = 16


def train(recipe: Recipe, out: Path | str, *, resume: bool = False) -> Path:
    """Train, or go on training, and return the run folder.

    Ctrl-C ends the step, writes a checkpoint and raises KeyboardInterrupt. A loss that is not finite stops
    before the step, writes a checkpoint of the weights before it, and raises NotFiniteError.
    """
    run = Path(out)
    check_run(run, recipe, resume)
    set_threads()
    settings = recipe.training
    with accelerated(recipe) as accelerator:
        is_main = accelerator.is_main_process
        accelerator.wait_for_everyone()  # no process may find what a faster one has begun
        rejected = Rejected(run / "rejected.jsonl" if is_main else None)
        dataset = open_dataset(kind_of(recipe.data), recipe.data, rejected)
        device = accelerator.device if settings.device == "auto" else pick_device(settings.device)
        bridge = build_bridge(recipe).to(device)
        if bridge.connector.wants_calibration and not checkpoints(run):
            calibrate(bridge, dataset)
        state = make_state(recipe, bridge, accelerator)
        side = recipe.data.size or bridge.vision.default_size
        batches = ReadAhead(
            dataset,
            bridge.vision,
            settings,
            (side, side),
            accelerator.process_index,
            accelerator.num_processes,
        )
        done = checkpoints(run)
        if done:
            load_checkpoint(done[-1], state, dataset.fingerprint())
            console.print(f"going on from {done[-1]}", markup=False, soft_wrap=True)
        if is_main:
            trained = {
                part: sum(p.numel() for p in weights.values()) for part, weights in state.parts.items()
            }
            note_run(run, recipe, device, trained)
            say_trained(trained, published_rates(kind_of(recipe.vision), settings.lr))
            say_captions(bridge, dataset)
        accelerator.wait_for_everyone()
        try:
            if settings.align is not None and not done:
                begin_aligned(run, state, batches, dataset, settings, is_main)
            run_loop(recipe, run, state, batches, dataset, is_main)
        finally:
            batches.close()
    return run


def make_state(recipe: Recipe, bridge: Bridge, accelerator: Accelerator) -> State:
    """Optimiser, average and the bridge as it is called, at step 0."""
    settings = recipe.training
    parts = bridge.trained_parameters()
    rates = published_rates(kind_of(recipe.vision), settings.lr)
    weights = [parameter for part in parts.values() for parameter in part.values()]

    def any_process(value: bool) -> bool:
        if accelerator.num_processes == 1:
            return value
        return bool(accelerator.reduce(torch.tensor(float(value), device=accelerator.device)) > 0)

    return State(
        bridge=bridge,
        model=accelerator.prepare_model(bridge, device_placement=False),
        parts=parts,
        optimizer=make_optimizer(parts, rates, settings.weight_decay),
        ema=None if settings.ema is None else Ema(weights, settings.ema),
        backward=accelerator.backward,
        alone=accelerator.no_sync,
        any_process=any_process,
    )


def begin_aligned(
    run: Path, state: State, batches: Batches, dataset: Dataset, settings: Training, is_main: bool
) -> None:
    """Align the connector in every process alike, and keep it as the checkpoint of step 0."""
    assert settings.align is not None
    begun = perf_counter()
    log = JsonLog(run / "align.jsonl") if is_main else None
    limit = math.inf if settings.max_minutes is None else settings.max_minutes * 30  # half of it
    try:
        align(state.bridge, dataset, batches, settings.align, log, limit)
    finally:
        if log is not None:
            log.close()
    for weight in state.bridge.connector.parameters():  # each process has learnt from its own pictures
        weight.data.copy_(broadcast(weight.data))
    if state.ema is not None:
        state.ema.take_over()
    state.seconds = perf_counter() - begun
    if is_main:
        save_checkpoint(run, state, dataset.fingerprint(), settings.keep_checkpoints)


def run_loop(
    recipe: Recipe, run: Path, state: State, batches: Batches, dataset: Dataset, is_main: bool
) -> None:
    """The loop with its events, and the checkpoint at its end, however it ends."""
    settings = recipe.training
    fingerprint = dataset.fingerprint()
    saved_at = state.step if checkpoints(run) else -1

    def save() -> None:
        nonlocal saved_at
        if is_main and state.step > 0 and saved_at != state.step:
            path = save_checkpoint(run, state, fingerprint, settings.keep_checkpoints)
            saved_at = state.step
            console.print(f"checkpoint: {path}", markup=False, soft_wrap=True)

    def preview() -> None:
        if is_main:
            draw_preview(state, recipe.preview, prompts, run)

    prune(run, None)  # what an earlier, killed session left half-written
    prompts = preview_prompts(recipe.preview, dataset)
    if settings.preview_every and state.step == 0:
        preview()
    log = JsonLog(run / "log.jsonl")
    with watch() as interrupted, progress("steps") as bar:
        events: list[Event] = []
        if is_main:
            events += [
                LogSteps(log, batches.times),
                ShowProgress(bar, settings.steps, state.step, settings.max_minutes),
            ]
        events += [
            Every(settings.preview_every, lambda state, report: preview()),
            Every(settings.checkpoint_every, lambda state, report: save()),
            lambda state, report: stop_on_signal(state, interrupted),
        ]
        try:
            fit(state, batches, settings, events)
        except NotFiniteError:
            save()
            raise
        finally:
            log.close()
        save()
        interrupted.leave()


def stop_on_signal(state: State, interrupted: Interrupted) -> None:
    """Event: end after this step when a signal has come, in any process."""
    if state.any_process(interrupted.by is not None):
        state.stop = "interrupted"


def say_captions(bridge: Bridge, dataset: Dataset) -> None:
    """Say how many captions are longer than the language model is given, and whether their scale fits."""
    looked_at = min(CAPTIONS_LOOKED_AT, len(dataset))
    captions = [caption for index in range(looked_at) for caption in dataset.sample(index).captions]
    note = scale_note(bridge, captions[:CAPTIONS_SCALED])
    if note is not None:
        console.print(note, markup=False, soft_wrap=True)
    cut = sum(lost > 0 for lost in bridge.language.count_tokens(captions)[1])
    if cut:
        console.print(
            f"note: {cut:,} of the first {len(captions):,} captions are longer than language.max_tokens; "
            "their ends are cut off",
            markup=False,
            soft_wrap=True,
        )


@contextmanager
def accelerated(recipe: Recipe) -> Iterator[Accelerator]:
    """An Accelerator that leaves nothing behind: a program's next run may choose another precision."""
    precision = "bf16" if recipe.training.precision == "bfloat16" else "no"
    on_cpu = recipe.training.device == "cpu"
    try:
        yield Accelerator(mixed_precision=precision, cpu=on_cpu)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
