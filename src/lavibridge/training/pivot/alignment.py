"""The stages that align a whole bridge: the first pair of a pivot, and each further vision model.

    first pair      features -> language half (learns) -> Z -> vision half (learns) -> conditioning
    vision model    features -> language half (frozen) -> Z -> vision half (learns) -> conditioning

The teacher is the vision model's own text encoder, or the bridge of `training.align.teacher`. The new folder
holds the progress, so that an interrupted stage resumes.
"""

from contextlib import ExitStack
from pathlib import Path

from lavibridge.bridge import Bridge
from lavibridge.connectors.pivot import Pivot
from lavibridge.core.device import set_threads
from lavibridge.core.errors import RunError
from lavibridge.core.identity import card_hash, weights_hash
from lavibridge.core.lock import hold_lock
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.pivot.folder import PIVOT, PivotFolder, write_pivot
from lavibridge.pivot.half import Learning, load_half, mismatch, read_half, write_half
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.alignment.aligner import Aligner
from lavibridge.training.alignment.captions import alignment_captions
from lavibridge.training.alignment.objective import alignment_method
from lavibridge.training.alignment.progress import AlignmentProgress
from lavibridge.training.alignment.stage import run_alignment
from lavibridge.training.assemble import assemble_bridge, assemble_loader
from lavibridge.training.build_bridge import calibrate_bridge
from lavibridge.training.checkpoints.run_fingerprint import run_fingerprint
from lavibridge.training.distributed.processes import Processes, begin_processes
from lavibridge.training.pivot.recipes import alignment_of, name_of, new_place
from lavibridge.training.run_folder import check_run_folder, write_run_record
from lavibridge.training.signals import watch_signals
from lavibridge.training.start_checks import check_start


def create(recipe: Recipe, out: Path, *, resume: bool = False) -> PivotFolder:
    """Align a first pair of models, and write it as a new pivot.

    Ctrl-C saves the current step; ``resume`` continues from it. Raises LaviError before loading models if the
    recipe cannot be aligned, and RunError if ``out`` holds other files.
    """
    if (out / PIVOT).is_file():
        raise RunError(f"{out} is already a pivot: choose another --out, or add models to it")
    check_start(recipe, out)
    set_threads()
    with begin_processes(recipe.training) as processes, hold_lock(out):
        check_run_folder(out, recipe, resume)
        bridge = assemble_bridge(recipe, processes)
        connector, learning = _aligned(bridge, recipe, out, processes)
        language, vision = connector.language_half, connector.vision_half
        pivot = card_hash([weights_hash(language), weights_hash(vision)])
        names = [name_of(model.config.source) for model in (bridge.language, bridge.vision)]
        for side, name, model, half in (
            ("language", names[0], bridge.language, language),
            ("vision", names[1], bridge.vision, vision),
        ):
            write_half(out / side / name, pivot, model, connector.config, half, learning)
        config = connector.config
        return write_pivot(out, pivot, slots=config.slots, width=config.width, reference=names[0])


def add_vision(pivot: PivotFolder, recipe: Recipe, name: str, *, resume: bool = False) -> Path:
    """Align a vision model through the language half that defines the pivot, and write its half.

    Returns the half's folder. Ctrl-C saves the current step; ``resume`` continues from it. Raises RunError
    if ``name`` exists already, or if the recipe's language model is not that of the pivot's first pair.
    """
    place = new_place(pivot, "vision", name)
    reference = read_half(pivot, "language", pivot.description.reference)
    check_start(recipe, place)
    set_threads()
    with begin_processes(recipe.training) as processes, hold_lock(place):
        check_run_folder(place, recipe, resume)
        bridge = assemble_bridge(recipe, processes)
        difference = mismatch(reference, bridge.language)
        if difference is not None:
            raise RunError(
                f"'{bridge.language.config.source}' is not the language model of {reference.folder}: "
                f"{difference}"
            )
        assert isinstance(bridge.connector, Pivot)  # by its recipe
        load_half(reference, bridge.connector.language_half)
        bridge.connector.language_half.requires_grad_(False)
        connector, learning = _aligned(bridge, recipe, place, processes)
        identity = pivot.description.id
        write_half(place, identity, bridge.vision, connector.config, connector.vision_half, learning)
    return place


def _aligned(bridge: Bridge, recipe: Recipe, run: Path, processes: Processes) -> tuple[Pivot, Learning]:
    """Align the trainable weights of a bridge's connector; return it and a summary of the training."""
    settings = alignment_of(recipe)
    dataset = open_dataset(kind_of_section(recipe.data), recipe.data, RejectedPictures())
    captions = alignment_captions(dataset, settings, recipe.training.seed)
    assert isinstance(bridge.connector, Pivot)  # by its recipe
    with watch_signals() as interrupted, ExitStack() as during:
        fingerprint = run_fingerprint(recipe, dataset, processes.count)
        every = recipe.training.checkpoint_every
        reached = AlignmentProgress.begin(run, fingerprint, every, processes, interrupted)
        if (
            not reached.step
            and recipe.training.start is None
            and bridge.connector.needs_calibration
            and bridge.connector.input_layer.weight.requires_grad
        ):
            calibrate_bridge(bridge, dataset)
        batches = assemble_loader(recipe, bridge, dataset, processes)
        during.callback(batches.close)
        aligner = Aligner(bridge, alignment_method(recipe), captions, recipe.training)
        learns = aligner.state.parts["connector"].values()
        write_run_record(run, recipe, processes.device, {"connector": sum(each.numel() for each in learns)})
        run_alignment(aligner, batches, reached, interrupted)
        measured = aligner.measure() if captions.held_out else {}
    reached.remove()
    teacher = settings.teacher or f"the text encoder of {bridge.vision.config.source}"
    learning = Learning(
        teacher=teacher,
        captions=len(captions.training),
        held_out=len(captions.held_out),
        fvu=measured.get("held_out_fvu"),
    )
    return bridge.connector, learning
