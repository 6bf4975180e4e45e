"""Measures how fast recipes learn: the share of right images against steps and minutes.

    python benchmarks/quality.py [FOLDER]        runs go to FOLDER (runs/quality) and resume there
    python benchmarks/quality.py [FOLDER] NAME   only this recipe

Every recipe connects mini-llama to mini-sd and trains on the same scenes. The averaged weights of each
checkpoint generate one image for each of PROMPTS prompts of one object (12 steps, quality `fast`), and the
checker scores them. A recipe's steps and minutes to a score are those of its first checkpoint with that
score, alignment included. Short recipes write checkpoints more often.

`published` is the published recipe: its connector without whitening, the last layer, dropout, its learning
rates, uniform timesteps, no alignment and no teacher. `threefold` and `tenfold` multiply its rates (thirty
times had learned nothing after 400 steps). `gentle` is `aligned longer, resampler` with a tenth of the
connector's rate during training on images, as in the quickstart.
"""

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import record

from lavibridge import BridgePipeline
from lavibridge.core.device import set_threads
from lavibridge.core.files import read_json
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.recipes.recipe import load_recipe
from lavibridge.training.checkpoints.checkpoint import is_run_trained, saved_checkpoints
from lavibridge.training.train import train

SEEDS, PROMPTS, SHARE = 3, 100, 0.9
COMMON = (
    "data.scenes=2000",
    "data.mix={one: 1.0}",
    "training.batch=16",
    "training.keep_checkpoints=null",
    "training.preview_every=0",
)
FORMER = (
    "connector.read=last",
    "connector.whiten=false",
    "connector.dropout=0.1",
    "lora.language={rank: 32, dropout: 0.1}",
    "lora.vision={rank: 32, dropout: 0.1}",
    "training.align=null",
    "training.caption_dropout=0",
    "training.weighting=uniform",
    "training.schedule=constant",
)
PUBLISHED = (*FORMER, "training.lr={language_lora: 5.0e-6, connector: 1.0e-4, vision_lora: 1.0e-4}")
THREEFOLD = (*FORMER, "training.lr={language_lora: 1.5e-5, connector: 3.0e-4, vision_lora: 3.0e-4}")
TENFOLD = (*FORMER, "training.lr={language_lora: 5.0e-5, connector: 1.0e-3, vision_lora: 1.0e-3}")
LONG = ("training.steps=1000", "training.checkpoint_every=100")
SHORT = ("training.steps=160", "training.checkpoint_every=20")
SHORTER = ("training.steps=40", "training.checkpoint_every=20")
ALIGNED = ("training.align={steps: 200, batch: 32, lr: 5.0e-3}",)
LONGER = ("training.align={steps: 600, batch: 32, lr: 5.0e-3}",)
GENTLE = ("training.lr={language_lora: 3.0e-5, connector: 1.0e-5, vision_lora: 1.0e-4}",)
TEACHER = ("training.teacher={guidance: 4.0}",)
RESAMPLER = (
    "connector.kind=resampler",
    "connector.blocks=1",
    "connector.latents=32",
    "connector.read={layer: 3}",
    "connector.whiten=true",
)
RECIPES: Mapping[str, tuple[str, ...]] = {
    "published": (*PUBLISHED, *LONG),
    "threefold": (*THREEFOLD, *LONG),
    "tenfold": (*TENFOLD, *LONG),
    "aligned": (*ALIGNED, *SHORT),
    "aligned, resampler": (*ALIGNED, *RESAMPLER, *SHORT),
    "aligned longer, resampler": (*LONGER, *RESAMPLER, *SHORTER),
    "gentle": (*LONGER, *RESAMPLER, *SHORTER, *GENTLE),
    "aligned, teacher": (*ALIGNED, *TEACHER, *SHORT),
}


def curve(name: str, seed: int, folder: Path) -> list[dict[str, float]]:
    """Return steps, minutes and the share of right images of a recipe's checkpoints, in order."""
    run = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    settings = (*COMMON, *RECIPES[name], f"training.seed={seed}")
    recipe = load_recipe("mini-llama_mini-sd_lavi", settings)
    if not is_run_trained(run, recipe.training):
        train(recipe, run, resume=(run / "recipe.yaml").is_file())
    before = len((run / "align.jsonl").read_text().splitlines()) if recipe.training.align else 0
    points = []
    for checkpoint in saved_checkpoints(run):
        state = read_json(checkpoint / "state.json")
        bridge = BridgePipeline.from_pretrained(checkpoint, device="cpu").bridge
        out = run / "judged" / str(state["step"])
        found = evaluate(bridge, "world", out, categories=["one"], limit=PROMPTS, quality="fast")
        right = found["metrics"]["world"]["all"]
        points.append(
            {"step": before + state["step"], "minutes": state["seconds"] / 60, "right": right["mean"]}
        )
    return points


def reached(points: list[dict[str, float]], score: float) -> dict[str, float] | None:
    """Return the first point with at least this score."""
    return next((point for point in points if point["right"] >= score), None)


def summary(curves: Mapping[str, list[list[dict[str, float]]]]) -> dict[str, Any]:
    """Return each recipe's last scores by seed, and its steps and minutes to the published recipe's score."""
    goals = {
        goal: SHARE * statistics.mean(points[-1]["right"] for points in curves[goal])
        for goal in ("published", "threefold", "tenfold")
        if goal in curves
    }
    found: dict[str, Any] = {"goals": goals}
    for name, seeds in curves.items():
        found[name] = {"last": [points[-1] for points in seeds]}
        for goal, score in goals.items():
            found[name][f"to {SHARE:.0%} of {goal}"] = [reached(points, score) for points in seeds]
    return found


def main() -> None:
    """Train, score and record."""
    given = sys.argv[1:]
    only = [each for each in given if each in RECIPES]
    folder = Path(next((each for each in given if each not in RECIPES), "runs/quality"))
    result: dict[str, Any] = {"threads": set_threads(), "prompts": PROMPTS, "seeds": SEEDS}
    curves = {name: [curve(name, seed, folder) for seed in range(SEEDS)] for name in only or RECIPES}
    record("quality", {**result, **summary(curves), "curves": curves})


if __name__ == "__main__":
    main()
