"""`lavi evaluate`: scores a run, with intervals."""

from pathlib import Path
from typing import Any

import typer

from lavibridge.cli.generate import PROXY
from lavibridge.core.seeds import MAX_SEED

_RUN = typer.Argument(
    metavar="RUN",
    help="A run folder or a saved bridge; or a vision model, shipped (mini-sd) or a folder, to evaluate with "
    "its own text encoder; or LANGUAGE+VISION, two models of a pivot.",
)
_PIVOT = typer.Option(
    None,
    "--pivot",
    metavar="FOLDER",
    help="Pivot that LANGUAGE+VISION belong to (see `lavi pivot`).  [default: the one in the package]",
)
_SUITE = typer.Option("world", "--suite", help="A suite's name or a path to its YAML file.")
_OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FOLDER",
    help="Folder of the results.  [default: evaluation/SUITE in the run folder; for a vision model "
    "runs/evaluation/NAME/SUITE; for a pair evaluation/LANGUAGE+VISION/SUITE in the pivot, in runs for that "
    "in the package]",
)
_CATEGORY = typer.Option(None, "--category", "-c", help="Evaluate only this category; repeatable.")
_LIMIT = typer.Option(None, "--limit", "-n", min=1, help="Maximum number of prompts per category.")
_PROMPTS = typer.Option(
    None,
    "--prompts",
    metavar="PATH",
    help="The suite's prompt file or folder, or hf://datasets/OWNER/NAME/FILE.",
)
_METRIC = typer.Option(
    None,
    "--metric",
    "-m",
    metavar="METRIC",
    help="Another metric: a kind, or its options as '{kind: clip_score, model: mini-clip}'. It replaces the "
    "suite's metric of the same name. Repeatable.",
)
_STEPS = typer.Option(None, "--steps", min=1, help="Denoising steps.  [default: the suite's]")
_GUIDANCE = typer.Option(None, "--guidance", min=1.0, help="Guidance scale.  [default: the suite's]")
_QUALITY = typer.Option(
    "exact",
    "--quality",
    metavar="exact|high|fast",
    help="Trades quality for speed; fast has its own number of steps.",
)
_DRAWN = typer.Option(
    False,
    "--drawn",
    help="RUN is a folder of images from another tool, one per prompt in the suite's order.",
)
_SEED = typer.Option(
    0, "--seed", min=0, max=MAX_SEED, help="Selects a set of noises; `lavi compare` needs equal seeds."
)


def evaluate(
    run: str = _RUN,
    pivot: Path | None = _PIVOT,
    proxy: str | None = PROXY,
    suite: str = _SUITE,
    out: Path | None = _OUT,
    category: list[str] | None = _CATEGORY,
    limit: int | None = _LIMIT,
    prompts: str | None = _PROMPTS,
    metric: list[str] | None = _METRIC,
    steps: int | None = _STEPS,
    guidance: float | None = _GUIDANCE,
    quality: str = _QUALITY,
    seed: int = _SEED,
    drawn: bool = _DRAWN,
) -> None:
    """Generate images for a suite's prompts and score them with its metrics.

    \b
    lavi evaluate runs/quickstart
    lavi evaluate mini-sd --category one --metric "{kind: clip_score, model: mini-clip}"
    lavi evaluate runs/mine --suite parti --prompts PartiPrompts.tsv
    lavi evaluate pictures-of-another-tool --drawn --suite parti
    RANK=0 WORLD_SIZE=4 lavi evaluate runs/mine      (and RANK=1, 2, 3: each does its share)

    Prints the scores on stdout, each with its n and its 95 % interval, and writes them to results.json;
    records.jsonl has one line per image. A second call continues after an interruption, and scores existing
    images with metrics that you add. `lavi show metric.KIND` lists a metric's options.
    """
    from lavibridge.cli.generate import open_pipeline
    from lavibridge.core.process_rank import rank_from_environment
    from lavibridge.evaluation.evaluate import evaluate as evaluate_bridge
    from lavibridge.pivot.folder import pivot_and_pair

    part = rank_from_environment()
    pair = pivot_and_pair(run, pivot)
    more = [_metric(each) for each in metric or ()]
    _check_arguments(run, suite, out, quality, drawn)
    if drawn and proxy is not None:
        raise typer.BadParameter("--proxy revises prompts, and --drawn generates no images: leave one out")
    pipe = None if drawn else open_pipeline(run, pair, evaluation_device(), proxy)
    origin = {} if pipe is None or pair is None else pipe.bridge.origin
    results = evaluate_bridge(
        Path(run) if pipe is None else pipe,
        suite,
        out or _results_of(run, origin) / Path(suite).stem,
        categories=category or None,
        limit=limit,
        prompts=prompts,
        metrics=more,
        num_inference_steps=steps,
        guidance_scale=guidance,
        quality=quality,
        seed=seed,
        part=part,
    )
    for line in _lines(results.get("metrics", {})):
        print(line)


def _check_arguments(run: str, suite: str, out: Path | None, quality: str, drawn: bool) -> None:
    """Raise LaviError for arguments that cannot work, before models load."""
    from lavibridge.evaluation.suite import read_suite
    from lavibridge.generation.quality import read_quality
    from lavibridge.recipes.input_paths import input_paths_of, refuse_output_inside_inputs

    inputs = {"the pictures": Path(run)} if drawn else input_paths_of(run)
    refuse_output_inside_inputs(out or _results_of(run, {}) / Path(suite).stem, "--out", inputs)
    read_suite(suite)
    read_quality(quality)


def _results_of(run: str, pair: dict[str, str]) -> Path:
    """The folder of the results, by suite, of a run, a vision model or a pair of a pivot.

    ``pair`` has the folder of the pivot and the names of both halves.
    """
    from lavibridge.bridge.saved_bridge import holds_saved_bridge
    from lavibridge.pivot.folder import read_pivot

    if pair:
        return read_pivot(pair["folder"]).evaluation(pair["language_half"], pair["vision_half"])
    if holds_saved_bridge(Path(run)):
        return Path(run) / "evaluation"
    return Path("runs") / "evaluation" / Path(run).name


def _metric(text: str) -> str | dict[str, Any]:
    """Parse a kind, or options in YAML's short form."""
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.yaml_text import parse_yaml

    found = parse_yaml(text, f"--metric: {text!r}")
    if not isinstance(found, str | dict):
        raise RecipeError(f"--metric must be a kind or options such as {{kind: clip_score}}, found {text!r}")
    return found


def evaluation_device() -> str:
    """Return the GPU that a launcher assigned to this process."""
    import torch

    from lavibridge.core.process_rank import local_rank

    local = local_rank()
    if local is None or not torch.cuda.is_available():
        return "auto"
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _lines(metrics: dict[str, Any]) -> list[str]:
    """Format one line per figure: metric, category, n, value and interval."""
    rows = []
    for name, found in metrics.items():
        figures = {**found.get("categories", {}), **found.get("totals", {})}
        if len(found.get("categories", {})) > 1:
            figures["all"] = found["all"]
        for title, each in figures.items():
            rows.append((name if title == name else f"{name} {title}", each, found["unit"]))
    width = max((len(title) for title, _, _ in rows), default=0)
    return [f"{title:<{width}}  n {each['n']:>5}  {_interval(each, unit)}" for title, each, unit in rows]


def _interval(each: dict[str, Any], unit: str) -> str:
    if not each["n"]:
        return "not scored"
    form = "{:.1%}" if unit == "share" else "{:.4g}"
    mean, low, high = (
        "unknown" if each[key] is None else form.format(each[key]) for key in ("mean", "low", "high")
    )
    missing = f"   ({each['unscored']} not scored)" if each.get("unscored") else ""
    return f"{mean:>8}   {low} to {high}{missing}"
