"""Trains a recipe into a run folder: builds the session, aligns if asked to, and runs the loop.

Cheap checks come before expensive ones: folder, data, models, disk space, and only then the first step.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter

from lavibridge.core.device import set_threads
from lavibridge.core.errors import DataError, ModelError, NotFiniteError, RunError
from lavibridge.core.lock import hold_lock
from lavibridge.core.log import progress_bar
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures, write_rejections
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.alignment.aligner import Aligner
from lavibridge.training.alignment.captions import alignment_captions
from lavibridge.training.alignment.objective import alignment_method
from lavibridge.training.alignment.progress import AlignmentProgress
from lavibridge.training.alignment.stage import run_alignment
from lavibridge.training.assemble import assemble_bridge, assemble_loader, assemble_state, assemble_validator
from lavibridge.training.build_bridge import calibrate_bridge
from lavibridge.training.checkpoints.checkpoint import (
    load_checkpoint,
    prune_checkpoints,
    read_checkpoint,
    saved_checkpoints,
)
from lavibridge.training.checkpoints.disk_space import check_disk_space
from lavibridge.training.checkpoints.run_fingerprint import fingerprint_differences, run_fingerprint
from lavibridge.training.data.held_out import hold_out
from lavibridge.training.distributed.processes import Processes, begin_processes
from lavibridge.training.loop import EverySteps, TrainingEvent, TrainingState, run_training_loop
from lavibridge.training.reporting.alerts import DataWaitAlert, ZeroGradientAlert
from lavibridge.training.reporting.console import (
    print_line,
    print_trained_parts,
    warn_about_captions,
    warn_about_clock,
)
from lavibridge.training.reporting.preview import preview_prompts
from lavibridge.training.reporting.step_metrics import StepLogger, StepProgress
from lavibridge.training.reporting.trackers import open_journal
from lavibridge.training.run_folder import (
    check_run_folder,
    refuse_recipe_changes,
    rewind_run_log,
    write_run_record,
)
from lavibridge.training.session import Session
from lavibridge.training.signals import InterruptSignals, watch_signals
from lavibridge.training.start_checks import check_bridge_at_start, check_start


def train(recipe: Recipe, out: Path | str, *, resume: bool = False) -> Path:
    """Train a recipe, or continue its run with ``resume``, and return the run folder.

    Ctrl-C finishes the step, writes a checkpoint and raises KeyboardInterrupt. After too many steps without a
    finite loss, training writes a checkpoint with the last finite weights and raises NotFiniteError. Raises
    RunError if another process writes into the folder, or if the run cannot continue with this recipe.
    """
    run = Path(out)
    check_start(recipe, run)
    set_threads()
    with begin_processes(recipe.training) as processes, ExitStack() as held:
        processes.by_main(lambda: held.enter_context(_locked(run)))
        changed = check_run_folder(run, recipe, resume)
        processes.wait()  # no process may check the folder after a faster one has started to write
        session = _open_session(recipe, run, processes, changed)
        try:
            with watch_signals() as interrupted:
                if recipe.training.align is not None and session.saved_at < 0:
                    _begin_aligned(session, interrupted)
                _run_loop(session, interrupted)
        finally:
            session.batches.close()
    return run


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Lock the run's folder. Raises RunError if it cannot be written."""
    with ExitStack() as held:
        try:
            held.enter_context(hold_lock(run))
        except OSError as error:
            raise RunError(f"{run} cannot be written: {error.strerror}; choose another --out") from error
        yield


def _open_session(recipe: Recipe, run: Path, processes: Processes, changed: list[str]) -> Session:
    """Build everything that a session needs, and load the newest checkpoint."""
    settings = recipe.training
    pictures = _open_data(recipe, run, processes)
    dataset, held_out = hold_out(pictures, settings.validation)
    standing = run_fingerprint(recipe, dataset, processes.count)
    processes.agree("data and models", f"{standing.data}; {standing.language}; {standing.vision}")
    done = saved_checkpoints(run)
    kept = read_checkpoint(done[-1]) if done else None
    if kept is not None:
        refuse_recipe_changes(run, fingerprint_differences(kept["basis"], standing))
    bridge = assemble_bridge(recipe, processes, is_new=kept is None)
    if bridge.connector.needs_calibration and kept is None and settings.start is None:
        calibrate_bridge(bridge, dataset)
    state = assemble_state(recipe, bridge, processes)
    if kept is not None:
        load_checkpoint(done[-1], state, kept)
    check_disk_space(run, state, settings)
    check_bridge_at_start(recipe, bridge, preview_prompts(recipe.preview, dataset))
    batches = assemble_loader(recipe, bridge, dataset, processes)
    try:
        validator = assemble_validator(recipe, bridge, held_out, processes)
        _begin_folder(run, recipe, state, dataset, processes, changed)
    except BaseException:
        batches.close()
        raise
    return Session(
        run=run,
        recipe=recipe,
        processes=processes,
        dataset=dataset,
        fingerprint=standing,
        state=state,
        batches=batches,
        validator=validator,
    )


def _open_data(recipe: Recipe, run: Path, processes: Processes) -> Dataset:
    """Open the data. If it rejects too many pictures, writes their list and raises DataError."""
    rejected = RejectedPictures()
    try:
        return open_dataset(kind_of_section(recipe.data), recipe.data, rejected)
    except DataError:
        if processes.is_main and rejected.entries:
            write_rejections(run / "rejected.jsonl", rejected.all)
        raise


def _begin_folder(
    run: Path,
    recipe: Recipe,
    state: TrainingState,
    dataset: Dataset,
    processes: Processes,
    changed: list[str],
) -> None:
    """Record the run, print what it trains, and remove a killed session's incomplete files."""
    settings = recipe.training
    if processes.is_main:
        trained = {part: sum(p.numel() for p in weights.values()) for part, weights in state.parts.items()}
        write_run_record(run, recipe, processes.device, trained)
        write_rejections(run / "rejected.jsonl", dataset.rejected.all)
        prune_checkpoints(run, None)
        rewind_run_log(run / "log.jsonl", state.step)
        done = saved_checkpoints(run)
        if done:
            print_line(f"continuing from {done[-1]}")
        elif settings.align is None:
            for name in ("align.jsonl", "align.safetensors"):
                (run / name).unlink(missing_ok=True)
        for text in changed:
            print_line(f"note: {text}")
        learning = trained if settings.steps else {"connector": trained["connector"]}  # alignment's only part
        print_trained_parts(
            learning, {group["part"]: group["rate"] for group in state.optimizer.param_groups}
        )
        warn_about_clock(settings)
    if processes.is_main or settings.sharding is not None:
        warn_about_captions(state.bridge, dataset)
    processes.wait()


def _begin_aligned(session: Session, interrupted: InterruptSignals) -> None:
    """Align the connector in all processes, and write it as the checkpoint of step 0."""
    settings, state, processes = session.recipe.training, session.state, session.processes
    assert settings.align is not None  # the caller has checked it
    reached = AlignmentProgress.begin(
        session.run, session.fingerprint, settings.checkpoint_every, processes, interrupted
    )
    begun = perf_counter() - reached.seconds
    captions = alignment_captions(session.dataset, settings.align, settings.seed)
    aligner = Aligner(state.bridge, alignment_method(session.recipe), captions, settings, processes)
    run_alignment(aligner, session.batches, reached, interrupted)
    # Each process has its own noised latents of the data, so the last bits of gradients may differ.
    processes.take_from_main(list(state.bridge.connector.parameters()))
    if state.ema is not None:
        state.ema.take_over()
    state.seconds = perf_counter() - begun
    session.save()
    reached.remove()


def _run_loop(session: Session, interrupted: InterruptSignals) -> None:
    """Run the loop with its events, and write a checkpoint at its end, even after an interruption."""
    settings, state = session.recipe.training, session.state
    if settings.preview_every and state.step == 0:
        session.preview()
    with progress_bar("steps") as bar:
        events: list[TrainingEvent] = []
        if session.processes.is_main:
            session.journal = open_journal(session.run, session.recipe, state.step)
            events += [
                StepLogger(session.journal, session.batches.times),
                StepProgress(bar, settings.steps, state.step, settings.max_minutes),
                ZeroGradientAlert(state.parts),
                DataWaitAlert(),
            ]
        events += [
            EverySteps(session.validator.every if session.validator else 0, lambda *_: session.validate()),
            EverySteps(settings.preview_every, lambda *_: session.preview()),
            EverySteps(settings.checkpoint_every, lambda *_: session.save()),
            lambda *_: session.unload_language_model(),
            lambda state, report: _stop_on_signal(state, interrupted, session.processes),
        ]
        try:
            if state.step == 0:
                session.validate()
            session.unload_language_model()
            run_training_loop(state, session.batches, settings, events)
        except (
            NotFiniteError,
            ModelError,
        ):  # too many skips, or a language model that cannot be loaded again
            if state.step > 0:
                session.save()  # raises its own error if the weights, not the samples, are the cause
            raise
        finally:
            if session.journal is not None:
                session.journal.close()
        session.save()
        interrupted.leave()


def _stop_on_signal(state: TrainingState, interrupted: InterruptSignals, processes: Processes) -> None:
    """Event: stop after this step if any process has received a signal."""
    if interrupted.share(processes.largest):
        state.stop = "interrupted"
