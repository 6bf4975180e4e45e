"""Compares language models for a pivot: cheap figures of each, and the share of pictures that it draws right.

    ridge fvu           of the slots by ridge regression on pooled features: nothing learns (`ridge.py`)
    fvu                 of the slots by a half that learned
    fvu, unseen words   of the slots for prompts in words that no caption has: what the half fills for
                        "a crimson disc" against what the reference fills for "a red circle"
    score               by category, with its interval: what `lavi evaluate` measures of the pair

All fvus are of captions that nobody learned from. GRAN-TED (arXiv 2512.15560) ranks text encoders by text
alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import numpy as np
import torch

from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.device import pick_device, set_threads
from lavibridge.core.errors import RecipeError
from lavibridge.evaluation.agreement import Association, spearman
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.pivot_scores import ALL, read_estimate
from lavibridge.evaluation.stats import Estimate
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import read_half
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.pivot.recipes import added_recipe, name_of
from lavibridge.training.pivot.regression import (
    LanguageSide,
    SlotTargets,
    learn_half,
    new_side,
    open_language_half,
    read_once,
    slot_targets,
    slots_fvu,
)
from lavibridge.training.pivot.ridge import ridge_fvu
from lavibridge.world.caption_templates import write_plain_caption
from lavibridge.world.captions import evaluation_prompts

REWORDED = 200
"""Prompts in unseen words."""
WARM_UP, TIMED = 3, 32
"""Prompts that a language model reads one by one before and while its time is taken."""
LEAST_MODELS = 3
"""Models from which on a rank correlation says anything."""
CHEAP = {"ridge_fvu": -1, "fvu": -1, "unseen_words_fvu": -1, "parameters": 1}
"""The figures that cost no picture; -1 where a low one is good."""


@dataclass(frozen=True, kw_only=True)
class RankDrawing:
    """How a ranking draws with each language model; the fields are those of `evaluate`."""

    vision: str
    """The name of a vision half."""
    suite: str
    categories: tuple[str, ...] | None
    limit: int | None
    quality: str


@dataclass(frozen=True, kw_only=True)
class RankedLanguage:
    """The figures of one language model; None where there is none."""

    name: str
    source: str
    is_reference: bool
    """Whether its half defines the pivot, so that its own fvu is 0."""
    ridge_fvu: float
    fvu: float | None
    unseen_words_fvu: float | None
    parameters: int
    """Weights of the language model."""
    milliseconds: float
    """Median time in which language model and half read one prompt."""
    megabytes: float
    """Memory of the language model's weights, in 10^6 bytes."""
    scores: Mapping[str, Estimate]
    """The share of pictures that are right, by category, and of `all`."""

    def record(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {**asdict(self), "scores": {name: each.record() for name, each in self.scores.items()}}


def rank_languages(
    pivot: PivotFolder,
    models: Sequence[str],
    settings: Sequence[str] = (),
    captions: Path | None = None,
    *,
    drawing: RankDrawing | None,
    closed_form: bool = False,
) -> list[RankedLanguage]:
    """Add each language model to a pivot, measure it, and return all from the best to the worst.

    ``models`` are sources, or names of language halves, which are measured as they are. With ``closed_form``
    no half learns, so that new models are not added and nothing is drawn; nor is it with ``drawing`` None.
    Raises LaviError before any model loads if a model, a half or a setting is not there.
    """
    recipes = _recipes(pivot, models, settings, captions)
    if drawing is not None:
        pivot.need("vision", drawing.vision)
    reference = read_half(pivot, "language", pivot.description.reference).description.model["source"]
    recipe = added_recipe(pivot, "language", str(reference), settings, captions)
    set_threads()
    reworded = _reworded() if kind_of_section(recipe.data) == "world" else {}
    targets = slot_targets(pivot, recipe, list(reworded.values()))
    if not targets.captions.held_out:
        raise RecipeError(
            "a ranking compares held-out captions, and there are none: raise training.align.held_out, or "
            "give at least 10 captions"
        )
    ranked = []
    for name, own in recipes.items():
        figures = _cheap_figures(pivot, name, own, recipe, targets, reworded, closed_form)
        scores = _scores(pivot, name, drawing, recipe) if drawing is not None and not closed_form else {}
        ranked.append(RankedLanguage(**figures, scores=scores))
    return sorted(ranked, key=_worth)


def rank_correlations(ranked: Sequence[RankedLanguage]) -> dict[str, dict[str, Association]]:
    """Return how the cheap figures order the models against each score: +1 as the pictures do, -1 reversed.

    By figure and category. Leaves out the reference, whose slots are the target, and every combination that
    fewer than three models have.
    """
    others = [each for each in ranked if not each.is_reference]
    found: dict[str, dict[str, Association]] = {}
    for figure, sign in CHEAP.items():
        for category in dict.fromkeys(category for each in others for category in each.scores):
            pairs = [
                (sign * float(value), each.scores[category].mean)
                for each in others
                if (value := getattr(each, figure)) is not None and category in each.scores
            ]
            if len(pairs) >= LEAST_MODELS:
                cheap, measured = (np.array(values) for values in zip(*pairs, strict=True))
                found.setdefault(figure, {})[category] = spearman(cheap, measured)
    return found


def ranking_record(
    pivot: PivotFolder,
    drawing: RankDrawing | None,
    ranked: Sequence[RankedLanguage],
    correlations: Mapping[str, Mapping[str, Association]],
) -> dict[str, Any]:
    """Return a ranking as JSON."""
    return {
        "pivot": pivot.description.id,
        "drawing": None if drawing is None else asdict(drawing),
        "models": [each.record() for each in ranked],
        "rank_correlations": {
            figure: {category: each.record() for category, each in found.items()}
            for figure, found in correlations.items()
        },
    }


def _recipes(
    pivot: PivotFolder, models: Sequence[str], settings: Sequence[str], captions: Path | None
) -> dict[str, Recipe | None]:
    """Return the recipe of each model that is to be added, by the name of its half; None for halves."""
    found: dict[str, Recipe | None] = {}
    sources: dict[str, str] = {}
    for model in dict.fromkeys(models):
        name = name_of(model)
        halves = pivot.names("language")
        if model in halves or (name in halves and _is_half_of(pivot, name, model)):
            found[name] = None
        elif name in found or name in halves:
            other = sources.get(name, f"the half {pivot.place('language', name)}")
            raise RecipeError(
                f"'{model}' and {other} would both be the half '{name}': add one of them with `lavi pivot "
                "add-language --name`, and rank it by that name"
            )
        else:
            found[name] = added_recipe(pivot, "language", model, settings, captions)
        sources[name] = f"'{model}'"
    return found


def _is_half_of(pivot: PivotFolder, name: str, model: str) -> bool:
    source = str(read_half(pivot, "language", name).description.model["source"])
    return source in (model, str(Path(model).resolve()))


def _cheap_figures(
    pivot: PivotFolder,
    name: str,
    own: Recipe | None,
    recipe: Recipe,
    targets: SlotTargets,
    reworded: Mapping[str, str],
    closed_form: bool,
) -> dict[str, Any]:
    """Return what costs no picture. A new model's half is written into the pivot, unless ``closed_form``."""
    if own is None:
        side = _stored_side(pivot, name, recipe, targets)
    else:
        side = new_side(own, targets)
        if not closed_form:
            learn_half(pivot, own, targets, side, pivot.place("language", name))
    held_out = targets.captions.held_out
    has_learned = own is None or not closed_form
    fvu = slots_fvu(side.half, side.read, held_out, held_out, targets.slots) if has_learned else None
    unseen = (
        slots_fvu(side.half, side.read, list(reworded), list(reworded.values()), targets.slots)
        if has_learned and reworded
        else None
    )
    weights = [*side.language.parameters(), *side.language.buffers()]
    return {
        "name": name,
        "source": side.language.config.source,
        "is_reference": name == pivot.description.reference,
        "ridge_fvu": ridge_fvu(side, targets),
        "fvu": fvu,
        "unseen_words_fvu": unseen,
        "parameters": sum(each.numel() for each in side.language.parameters()),
        "milliseconds": _milliseconds(side, held_out),
        "megabytes": sum(each.numel() * each.element_size() for each in weights) / 1e6,
    }


def _stored_side(pivot: PivotFolder, name: str, recipe: Recipe, targets: SlotTargets) -> LanguageSide:
    """Return a half of the pivot with its model, as they are."""
    language, config, half = open_language_half(pivot, name, pick_device(recipe.training.device))
    return read_once(language, config, half, recipe, targets.captions)


@torch.no_grad()
def _milliseconds(side: LanguageSide, captions: Sequence[str]) -> float:
    """Return the median time from a prompt, alone, to its slots."""
    reading = ReadingSpec(layers=side.half.read.layers)
    marks = []
    for number in range(WARM_UP + TIMED + 1):
        marks.append(time.perf_counter())
        prompt = captions[number % len(captions)]
        side.half.slots(side.language.encode([prompt], reading)).cpu()  # a GPU has finished then
    return 1000 * median(end - begun for begun, end in pairwise(marks[WARM_UP:]))


def _scores(pivot: PivotFolder, name: str, drawing: RankDrawing, recipe: Recipe) -> dict[str, Estimate]:
    """Draw and score the pair's pictures; the pivot keeps them, as `lavi evaluate` does."""
    pipe = BridgePipeline.from_pivot(pivot.folder, name, drawing.vision, device=recipe.training.device)
    results = evaluate(
        pipe,
        drawing.suite,
        pivot.evaluation(name, drawing.vision) / Path(drawing.suite).stem,
        categories=drawing.categories,
        limit=drawing.limit,
        quality=drawing.quality,
    )
    figures = next((each for each in results["metrics"].values() if "categories" in each), None)
    if figures is None:
        raise RecipeError(f"the suite '{drawing.suite}' has no metric that scores single pictures")
    named = {ALL: figures["all"], **figures["categories"]}
    return {category: read_estimate(each) for category, each in named.items() if each["n"]}


def _reworded() -> dict[str, str]:
    """Return prompts in words that no caption has, each with a plain caption of the same scene."""
    return {
        pair.caption: write_plain_caption(np.random.default_rng(crc32(pair.caption.encode())), pair.spec)
        for pair in evaluation_prompts("unseen-words", REWORDED)
    }


def _worth(each: RankedLanguage) -> tuple[float, float]:
    """Sort by measured score where there is one, then by fvu, then by that of the ridge regression."""
    score = each.scores[ALL].mean if ALL in each.scores else 0.0
    return -score, each.ridge_fvu if each.fvu is None else each.fvu
