"""The stage that adds a language model: its half learns to reproduce the first language half's slots.

    caption --reference model, frozen--> reference half, frozen --> slots
    caption --new model, frozen--------> new half (learns) -------> slots'       loss = fvu of slots'

Slots have an order, so the loss compares them one by one. The stage loads no vision model, and each language
model reads each caption once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.alignment.parts.variance import unexplained
from lavibridge.bridge.choices import model_of_choice
from lavibridge.connectors.parts.whitening import compute_whitening, fold_whitening
from lavibridge.connectors.pivot import LanguageHalf, Pivot
from lavibridge.core.contracts import ReadingSpec, TextFeatures, TextSpec
from lavibridge.core.device import pick_device, set_threads
from lavibridge.core.errors import NotFiniteError
from lavibridge.core.files import write_folder_atomic
from lavibridge.core.log import progress_bar
from lavibridge.core.seeds import mix_seeds
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.language.base import LanguageModel
from lavibridge.pivot.compose import open_half
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import Learning, config_of, load_half, write_half
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.alignment.aligner import EPOCHS, OPTIMIZER, with_noise
from lavibridge.training.alignment.captions import AlignmentCaptions, alignment_captions
from lavibridge.training.alignment.teacher import SETTING
from lavibridge.training.cache.backend import MemoryBackend
from lavibridge.training.cache.features import Features
from lavibridge.training.data.order import ShuffledOrder
from lavibridge.training.optimization import half_cosine, linear_warmup, make_optimizer
from lavibridge.training.pivot.recipes import alignment_of, connector_config, new_place

READ_TOGETHER = 64
"""Captions that a language model reads in one call."""
CALIBRATED_ON = 256
"""Number of captions to whose features the first weights are fitted."""
Reader = Callable[[Sequence[str]], TextFeatures]
Targets = dict[str, Float[Tensor, "1 slot pivot"]]
"""The slots of each caption."""


@dataclass(frozen=True, kw_only=True)
class SlotTargets:
    """What language halves learn: the slots that the reference half fills for each caption."""

    captions: AlignmentCaptions
    reference: LanguageHalf
    slots: Targets


@dataclass(frozen=True, kw_only=True)
class LanguageSide:
    """A language model, its half, and a reader that reads each caption once."""

    language: LanguageModel
    config: Pivot.Config
    half: LanguageHalf
    read: Reader


def add_language(pivot: PivotFolder, recipe: Recipe, name: str) -> Path:
    """Train the half of the recipe's language model by regression, and write it into the pivot.

    Returns the half's folder. An interrupted call leaves no files.
    """
    place = new_place(pivot, "language", name)
    set_threads()
    targets = slot_targets(pivot, recipe)
    learn_half(pivot, recipe, targets, new_side(recipe, targets), place)
    return place


def slot_targets(pivot: PivotFolder, recipe: Recipe, more: Sequence[str] = ()) -> SlotTargets:
    """Return the slots of the recipe's captions, and of ``more`` captions, by the half that defines Z."""
    dataset = open_dataset(kind_of_section(recipe.data), recipe.data, RejectedPictures())
    captions = alignment_captions(dataset, alignment_of(recipe), recipe.training.seed)
    texts = list(dict.fromkeys([*captions.training, *captions.held_out, *more]))
    reference, slots = reference_slots(pivot, texts, pick_device(recipe.training.device))
    return SlotTargets(captions=captions, reference=reference, slots=slots)


def new_side(recipe: Recipe, targets: SlotTargets) -> LanguageSide:
    """Load the recipe's language model, with a half that has not learned yet."""
    device = pick_device(recipe.training.device)
    config = connector_config(recipe)
    language: LanguageModel = model_of_choice("language", recipe.language.model_dump()).to(device)
    half = new_half(config, language.spec, targets.reference, recipe.training.seed).to(device)
    side = read_once(language, config, half, recipe, targets.captions)
    if config.whiten:
        whiten(half, side.read(targets.captions.training[:CALIBRATED_ON]))
    return side


def read_once(
    language: LanguageModel,
    config: Pivot.Config,
    half: LanguageHalf,
    recipe: Recipe,
    captions: AlignmentCaptions,
) -> LanguageSide:
    """Read the captions, as many as fit into the cache, and return a language model with its reader."""
    device = pick_device(recipe.training.device)
    memory = MemoryBackend(alignment_of(recipe).feature_cache_gb)
    features = Features(language, ReadingSpec(layers=half.read.layers), memory, b"")
    features.read_ahead([*captions.training, *captions.held_out])
    return LanguageSide(
        language=language, config=config, half=half, read=lambda texts: features.together(texts, device)
    )


def learn_half(
    pivot: PivotFolder, recipe: Recipe, targets: SlotTargets, side: LanguageSide, place: Path
) -> None:
    """Learn a half by regression, and write it into a folder; a call that is stopped leaves nothing."""
    captions = targets.captions
    fvu = regress(side.half, side.read, captions, targets.slots, recipe)
    learning = Learning(
        teacher=f"the language half '{pivot.description.reference}'",
        captions=len(captions.training),
        held_out=len(captions.held_out),
        fvu=fvu,
    )
    with write_folder_atomic(place):
        write_half(place, pivot.description.id, side.language, side.config, side.half, learning)


def regress(
    half: LanguageHalf, read: Reader, captions: AlignmentCaptions, targets: Targets, recipe: Recipe
) -> float | None:
    """Train a language half on the slots of captions; return the fvu of held-out captions, if any.

    `training.align` sets steps, learning rate, noise and patience. Raises NotFiniteError if the loss is not
    finite.
    """
    settings, seed = alignment_of(recipe), recipe.training.seed
    order = ShuffledOrder(len(captions.training), mix_seeds(seed, EPOCHS))
    weights = {name: weight for name, weight in half.named_parameters() if weight.requires_grad}
    optimizer = make_optimizer({"half": weights}, {"half": settings.lr}, 0.0, OPTIMIZER)
    measured: list[float] = []
    with progress_bar("steps") as bar:
        task = bar.add_task("language half", total=settings.steps, status="")
        for step in range(settings.steps):
            positions = range(step * settings.batch, (step + 1) * settings.batch)
            chosen = [captions.training[order.index(position)] for position in positions]
            features = with_noise(
                read(chosen), settings.noise, torch.Generator().manual_seed(mix_seeds(seed, step))
            )
            target = torch.cat([targets[caption] for caption in chosen]).to(features.hidden)
            rate = settings.lr * linear_warmup(step, settings.warmup) * half_cosine(step / settings.steps)
            optimizer.param_groups[0]["lr"] = rate
            fvu = unexplained(half.slots(features), target, over=(0,))
            value = _take_step(optimizer, fvu, recipe.training.clip, step)
            if captions.held_out and (step + 1) % settings.measure_every == 0:
                measured.append(slots_fvu(half, read, captions.held_out, captions.held_out, targets))
            shown = f", held out {measured[-1]:.3f}" if measured else ""
            bar.update(task, completed=step + 1, status=f"fvu {value:.3f}{shown}")
            if settings.patience is not None and _since_lowest(measured) >= settings.patience:
                break
    if not captions.held_out:
        return None
    return slots_fvu(half, read, captions.held_out, captions.held_out, targets)


def _take_step(
    optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""], clip: float | None, step: int
) -> float:
    """Clip the gradient, update the weights, return the loss. Raises NotFiniteError if it is not finite."""
    loss.backward()
    weights = optimizer.param_groups[0]["params"]
    norm = torch.nn.utils.clip_grad_norm_(weights, math.inf if clip is None else clip)
    value = float(loss.detach())
    if not math.isfinite(value + float(norm)):
        raise NotFiniteError(f"step {step + 1} of the regression: the loss is {value:g}: lower {SETTING}.lr")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value


def _since_lowest(measured: Sequence[float]) -> int:
    """Return the number of measurements after the lowest."""
    return len(measured) - 1 - measured.index(min(measured)) if measured else 0


def new_half(config: Pivot.Config, text: TextSpec, reference: LanguageHalf, seed: int) -> LanguageHalf:
    """Make a half that starts with the reference's weights wherever they have the same shape.

    The read-out and the input layer get new weights; latents and blocks, which fill the slots, are copied.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        half = LanguageHalf(config, text)
    own = half.state_dict()
    half.load_state_dict(
        own
        | {
            name: value
            for name, value in reference.state_dict().items()
            if not name.startswith(("proj_in.", "read.")) and name in own and own[name].shape == value.shape
        }
    )
    return half


@torch.no_grad()
def slots_fvu(
    half: LanguageHalf, read: Reader, texts: Sequence[str], captions: Sequence[str], targets: Targets
) -> float:
    """Return the fvu of the slots of texts, whose targets are those of captions in the same order."""
    filled = [half.slots(read(part)) for part in caption_batches(texts)]
    expected = torch.cat([targets[caption] for caption in captions])
    return float(unexplained(torch.cat(filled).cpu(), expected, over=(0,)))


@torch.no_grad()
def reference_slots(
    pivot: PivotFolder, texts: Sequence[str], device: torch.device
) -> tuple[LanguageHalf, Targets]:
    """Return the half that defines the pivot, and the slots that it fills for each caption."""
    name = pivot.description.reference
    language, _, half = open_language_half(pivot, name, device)
    reading = ReadingSpec(layers=half.read.layers)
    targets: Targets = {}
    with progress_bar("captions") as bar:
        task = bar.add_task(f"slots of {name}", total=len(texts), status="")
        for part in caption_batches(texts):
            slots = half.slots(language.encode(language.revise(part), reading)).cpu()
            targets |= zip(part, slots.split(1), strict=True)
            bar.advance(task, len(part))
    return half.cpu(), targets


def open_language_half(
    pivot: PivotFolder, name: str, device: torch.device
) -> tuple[LanguageModel, Pivot.Config, LanguageHalf]:
    """Load a language half of the pivot with its model and its options."""
    description = pivot.description
    stored, language = open_half(pivot, "language", name)
    assert isinstance(language, LanguageModel)  # by its side
    config = config_of(stored).model_copy(update={"slots": description.slots, "width": description.width})
    half = LanguageHalf(config, language.spec)
    load_half(stored, half)
    return language.to(device), config, half.to(device)


@torch.no_grad()
def whiten(half: LanguageHalf, features: TextFeatures) -> None:
    """Fit the first weights to the features, except each first token, which many models compute alike."""
    real = features.mask.clone()
    real[:, 0] = False
    fold_whitening(half.proj_in, compute_whitening(half.read(features.hidden)[real]))


def caption_batches(captions: Sequence[str]) -> list[Sequence[str]]:
    """Cut captions into the batches that a language model reads in one call."""
    return [captions[start : start + READ_TOGETHER] for start in range(0, len(captions), READ_TOGETHER)]
