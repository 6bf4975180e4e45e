"""What an alignment of a published pair takes, by `lavi plan`: every preset with every objective.

    python benchmarks/plan_alignments.py                  prints the table of docs/guides/align.md
    python benchmarks/plan_alignments.py flux1_aligned    the rows of one preset

The models are built on the meta device from their configurations. Captions have as many tokens as the preset
allows. An RTX 4090 gives the time where its 24 GiB suffice, an H100 otherwise.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from published_configs import write_language_model, write_pipeline

from lavibridge.plan.alignment_passes import alignment_cost
from lavibridge.plan.alignment_plan import estimate_alignment
from lavibridge.plan.devices import GPUS
from lavibridge.plan.meta_model import build_meta_bridge, model_parts
from lavibridge.plan.search import SHARE
from lavibridge.plan.table import gib
from lavibridge.recipes.recipe import Recipe, load_recipe

SMALL, LARGE = GPUS["rtx4090"], GPUS["h100"]
RECOMPUTED = ("training.checkpointing=true", "training.align.batch=16")
FEW = ("training.checkpointing=true", "training.align.batch=4")
SOLVED = ("connector={kind: lavi}", "training.align.held_out=0")
ON_DISK = ("training.cache.folder=cache",)


class Pair(NamedTuple):
    """A preset's models."""

    vision: str
    language: str
    title: str


PAIRS: Mapping[str, Pair] = {
    "sdxl_aligned": Pair("sdxl", "qwen3-0.6b", "SDXL, Qwen3-0.6B"),
    "sd35_aligned": Pair("sd35-medium", "qwen3-0.6b", "SD 3.5 medium, Qwen3-0.6B"),
    "flux1_aligned": Pair("flux1", "t5-base", "FLUX.1, T5-base"),
}
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("sdxl_aligned", "attention", ()),
    ("sdxl_aligned", "blocks", RECOMPUTED),
    ("sdxl_aligned", "prediction", RECOMPUTED),
    ("sdxl_aligned", "tokens", ()),
    ("sdxl_aligned", "closed_form", SOLVED),
    ("sd35_aligned", "blocks", ()),
    ("sd35_aligned", "prediction", ()),
    ("sd35_aligned", "tokens", ("connector.latents=333",)),
    ("sd35_aligned", "closed_form", SOLVED),
    ("flux1_aligned", "blocks", FEW),
    ("flux1_aligned", "prediction", RECOMPUTED),
    ("flux1_aligned", "tokens", ()),
    ("flux1_aligned", "tokens", ON_DISK),
    ("flux1_aligned", "closed_form", SOLVED),
)
"""Preset, objective, and the settings beside it."""
HEAD = (
    "| pair | `match` | settings beside it | trained | captions | memory | in 24 GiB | a step | hours |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def published_recipe(preset: str, match: str, settings: tuple[str, ...], root: Path) -> Recipe:
    """A preset with the configurations of its models in folders below ``root``."""
    pair = PAIRS[preset]
    sources = [
        f"vision.source={write_pipeline(pair.vision, root)}",
        f"language.source={write_language_model(pair.language, root)}",
    ]
    return load_recipe(preset, [*sources, *settings, f"training.align.match={match}"])


def row(preset: str, match: str, settings: tuple[str, ...], root: Path) -> str:
    """One row of the table."""
    recipe = published_recipe(preset, match, settings, root)
    bridge = build_meta_bridge(recipe)
    parts = model_parts(bridge)
    align = recipe.training.align
    assert align is not None  # every preset aligns
    cost = alignment_cost(bridge, recipe, align.batch, None, SMALL.type)
    assert cost is not None
    plan, larger = (estimate_alignment(recipe, cost, parts, device, None) for device in (SMALL, LARGE))
    fits = plan.memory_total <= SHARE * SMALL.memory
    plan, device = (plan, SMALL) if fits else (larger, LARGE)
    step = f"{plan.step_seconds:.2g} s" if plan.steps else "none"
    cells = (
        PAIRS[preset].title,
        f"`{match}`",
        ", ".join(f"`{each}`" for each in settings) or "",
        f"{next(part.trained for part in parts if part.name == 'connector') / 1e6:,.2f} M",
        str(plan.captions_per_step),
        gib(plan.memory_total),
        "yes" if fits else "no",
        step,
        f"{plan.hours:.2g} ({device.name})",
    )
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def main() -> None:
    """Print the table, or the rows of the presets that are named."""
    presets = sys.argv[1:] or list(PAIRS)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(HEAD))
        for case in CASES:
            if case[0] in presets:
                print(row(*case, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
