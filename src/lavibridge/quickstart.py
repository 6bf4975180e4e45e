"""The quickstart: trains a bridge for two minutes, gives it a second language model in half a minute, and
compares their images with those of two baselines.

    untrained bridge | trained bridge | second language model | the image model's own text encoder

All four get the same prompts and seeds. The second language model learns from captions alone: a translator
(connectors/translator.py) makes of its features the tokens that the connector makes of the first one's, and
no step calls the denoiser. The untrained bridge is the lower baseline. The image model's own text encoder is
the upper one: a bridge can hardly generate what its image model cannot.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavibridge.bridge import Bridge
from lavibridge.core.device import set_threads
from lavibridge.core.files import write_json
from lavibridge.core.lock import hold_lock
from lavibridge.core.log import console
from lavibridge.core.process_rank import require_single_process
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.provenance import holds_other_images
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.generation.image_files import save_png
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.recipes.alignment import alignment_recipe
from lavibridge.recipes.recipe import Recipe, dump_recipe, load_recipe
from lavibridge.recipes.training_section import AlignmentSection
from lavibridge.report.page import write_report
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.checkpoints.checkpoint import is_run_trained
from lavibridge.training.run_folder import changed_run_inputs, refuse_recipe_changes
from lavibridge.training.train import train

SHEET_PROMPTS = (
    "a red circle",
    "a red circle left of a blue square",
    "a large yellow star",
    "a striped purple ring",
    "a checkered green triangle",
    "a red cross and a blue circle",
)
_SHEET_SEED = 7
_CATEGORIES = {"one": "one thing", "two": "two things", "spatial": "in a direction"}
"""The evaluated categories, and how the table calls them."""
_PROMPTS = 60
"""Prompts per condition and category; the intervals extend at most about 12 points to each side."""
_STEPS, _GUIDANCE = 20, 4.0
_SECOND_LANGUAGES = ("mini-bert", "mini-llama")
"""The first one that the bridge was not trained with takes its language model's place."""
_TRANSLATION_STEPS = 300
"""They keep 92 of 95 % of single things and 72 of 73 % of two (LOG.md, 2026-12-01)."""


@dataclass(frozen=True, kw_only=True)
class QuickstartCondition:
    """A bridge to evaluate, and its name in the results."""

    name: str
    bridge: Bridge
    folder: Path


def run_quickstart(recipe: Recipe, out: Path, *, prompts: int = _PROMPTS, steps: int = _STEPS) -> Path:
    """Train a bridge, evaluate it with its baselines, and write a report; returns the run folder.

    Generates `prompts` images per condition and category, each in `steps` denoising steps. Resumes an earlier
    call with the same recipe. Raises RunError if the folder holds anything else or is in use.
    """
    require_single_process("a quickstart")
    set_threads()
    with hold_lock(out):
        return _run(recipe, out, prompts, steps)


def _run(recipe: Recipe, out: Path, prompts: int, steps: int) -> Path:
    phases: dict[str, float] = {}
    with _phase("training", phases):
        _train(recipe, out)
    second = second_language_recipe(recipe, out)
    name = second.language.model_dump()["source"]
    with _phase("connecting a second language model", phases):
        _train(second, out / name)
    with _phase("loading", phases):
        conditions = _conditions(recipe, out, name)
    with _phase("generating the contact sheet", phases):
        _draw_sheet(conditions, out / "contact_sheet.png", steps)
    with _phase("evaluating", phases):
        found = [_measure(condition, prompts, steps) for condition in conditions]
    results = _merged(conditions, found, phases)
    write_json(out / "results.json", results)
    page = write_report([out], out / "report.html")
    _tell(results, out, page)
    return out


def quickstart_recipe(minutes: float = 2.0, language: str | None = None) -> Recipe:
    """Load the recipe `quickstart` with this time limit and, if given, this language model."""
    settings = [
        f"training.max_minutes={minutes * 0.95:.4g}",  # leaves time for the last checkpoint
        # More steps than two cores can take in this time; a GPU finishes earlier.
        f"training.steps={max(1, round(300 * minutes))}",
        f"training.align.steps={max(1, round(300 * minutes))}",
    ]
    if language is not None:
        settings += [f"language={json.dumps({'source': language})}", "connector.read=last"]
    return load_recipe("quickstart", settings)


def second_language_recipe(recipe: Recipe, trained: Path) -> Recipe:
    """Return the recipe that puts another language model in front of the connector of a trained run."""
    own = recipe.language.model_dump()["source"]
    name = next(each for each in _SECOND_LANGUAGES if each != own)
    training, align = recipe.training, recipe.training.align or AlignmentSection()
    minutes = None if training.max_minutes is None else training.max_minutes / 2
    shorter = align.model_copy(update={"steps": min(align.steps, _TRANSLATION_STEPS)})
    training = training.model_copy(update={"align": shorter, "max_minutes": minutes})
    return alignment_recipe(
        recipe.model_copy(update={"training": training}),
        language=name,
        teacher=str(trained),
        translate=True,
    )


def _train(recipe: Recipe, out: Path) -> None:
    """Train, or resume an earlier training; does nothing if it is finished."""
    kept = out / "recipe.yaml"
    is_same = kept.is_file() and kept.read_text(encoding="utf-8") == dump_recipe(recipe)
    if is_same and is_run_trained(out, recipe.training):
        refuse_recipe_changes(out, changed_run_inputs(out, recipe))
        console.print(f"{out} is already trained (delete it to start again)", soft_wrap=True)
        return
    train(recipe, out, resume=kept.is_file())


def _conditions(recipe: Recipe, out: Path, second: str) -> list[QuickstartCondition]:
    bridges = {
        "untrained bridge": build_bridge(recipe),
        "trained bridge": BridgePipeline.from_pretrained(out).bridge,
        f"{second} in front of it": BridgePipeline.from_pretrained(out / second).bridge,
        "the image model's own text encoder": BridgePipeline.native(recipe.vision.model_dump()).bridge,
    }
    folders = ("untrained", "trained", second, "own-encoder")
    return [
        QuickstartCondition(name=name, bridge=bridge.eval(), folder=out / "conditions" / folder)
        for (name, bridge), folder in zip(bridges.items(), folders, strict=True)
    ]


def _draw_sheet(conditions: list[QuickstartCondition], path: Path, steps: int) -> None:
    columns = [
        BridgePipeline(condition.bridge)(
            SHEET_PROMPTS, num_inference_steps=steps, guidance_scale=_GUIDANCE, seed=_SHEET_SEED
        ).images
        for condition in conditions
    ]
    names = [condition.name for condition in conditions]
    sheet = contact_sheet([list(row) for row in zip(*columns, strict=True)], SHEET_PROMPTS, names)
    description = (
        f"Rows: {'; '.join(SHEET_PROMPTS)}. Columns: {'; '.join(names)}. Seed {_SHEET_SEED} everywhere."
    )
    save_png(path, sheet, {"description": description})


def _measure(condition: QuickstartCondition, prompts: int, steps: int) -> dict[str, Any]:
    """Evaluate a condition; replaces images from before a further training of its bridge."""
    if holds_other_images(condition.folder, condition.bridge):
        console.print(f"{condition.folder} holds images of another bridge: replacing them", soft_wrap=True)
        shutil.rmtree(condition.folder)
    return evaluate(
        condition.bridge,
        "world",
        condition.folder,
        categories=tuple(_CATEGORIES),
        limit=prompts,
        num_inference_steps=steps,
        guidance_scale=_GUIDANCE,
    )


def _merged(
    conditions: list[QuickstartCondition], found: list[dict[str, Any]], phases: dict[str, float]
) -> dict[str, Any]:
    """The trained bridge's results, as `lavi evaluate` writes them, with those of the baselines."""
    by_name = {condition.name: results for condition, results in zip(conditions, found, strict=True)}
    trained = by_name.pop("trained bridge")
    return {
        **trained,
        "compared": by_name,
        "seconds": {name: round(value, 2) for name, value in phases.items()},
    }


@contextmanager
def _phase(name: str, phases: dict[str, float]) -> Iterator[None]:
    """Print the name of a phase, and record its duration."""
    console.print(name, style="bold")
    start = time.monotonic()
    yield
    phases[name] = time.monotonic() - start


def _tell(results: dict[str, Any], out: Path, page: Path) -> None:
    """Print the scores and the next commands on stderr."""
    rows = {"trained bridge": results, **results["compared"]}
    width = max(len(name) for name in rows)
    count = results["metrics"]["world"]["categories"]["one"]["n"]
    console.print(f"\nimages with every attribute right (share, 95 % interval, n {count} each)")
    titles = "".join(f"  {title:<24}" for title in _CATEGORIES.values())
    console.print(f"  {'':<{width}}{titles}", soft_wrap=True)
    for name, each in rows.items():
        scores = [each["metrics"]["world"]["categories"][category] for category in _CATEGORIES]
        cells = [f"{score['mean']:6.1%} ({score['low']:.1%} to {score['high']:.1%})" for score in scores]
        console.print(f"  {name:<{width}}" + "".join(f"  {cell:<24}" for cell in cells), soft_wrap=True)
    console.print(
        f"\nReport: {page}\n\nNext steps:\n"
        f'  lavi generate {out} "a small red circle" "a large blue star" --guidance {_GUIDANCE}\n'
        f"  lavi evaluate {out} --suite world\n"
        "  lavi train mini-llama_mini-sd_lavi --out runs/longer\n"
        "  lavi show\n\n"
        "Generate images on a page in the browser:\n"
        f"  lavi serve {out}",
    )
