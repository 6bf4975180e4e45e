"""`lavi evaluate`: a run in, scores with intervals out."""

from pathlib import Path
from typing import Any

import typer

from lavibridge.core.seeds import MAX_SEED

RUN = typer.Argument(
    metavar="RUN",
    help="A run folder, a folder made by save_pretrained; or an image model, "
    "shipped (mini-sd) or a folder, which then is measured with its own text encoder; or LANGUAGE+VISION, "
    "two models of a pivot.",
)
PIVOT = typer.Option(
    None,
    "--pivot",
    metavar="FOLDER",
    help="Pivot that LANGUAGE+VISION belong to (see `lavi pivot`).  [default: the one in the package]",
)
SUITE = typer.Option("world", "--suite", help="A suite's name or a path to its YAML file.")
OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FOLDER",
    help="Where results go.  [default: evaluation/SUITE in the run folder; for an image model "
    "runs/evaluation/NAME/SUITE; for a pair evaluation/LANGUAGE+VISION/SUITE in the pivot]",
)
CATEGORY = typer.Option(None, "--category", "-c", help="Only this category; may be given again.")
LIMIT = typer.Option(None, "--limit", "-n", min=1, help="At most so many prompts of each category.")
PROMPTS = typer.Option(
    None,
    "--prompts",
    metavar="PATH",
    help="The suite's prompt file or folder, or hf://datasets/OWNER/NAME/FILE.",
)
METRIC = typer.Option(
    None,
    "--metric",
    "-m",
    metavar="METRIC",
    help="One more metric: a kind, or its options as '{kind: clip_score, model: mini-clip}'; it replaces the "
    "suite's of the same name. May be given again.",
)
STEPS = typer.Option(None, "--steps", min=1, help="Denoising steps.  [default: the suite's]")
GUIDANCE = typer.Option(None, "--guidance", min=1.0, help="Guidance scale.  [default: the suite's]")
QUALITY = typer.Option(
    "exact",
    "--quality",
    metavar="exact|high|fast",
    help="How much work a picture is worth; fast brings its own number of steps.",
)
DRAWN = typer.Option(
    False,
    "--drawn",
    help="RUN is a folder of pictures drawn elsewhere, one for each prompt in the suite's order.",
)
SEED = typer.Option(
    0, "--seed", min=0, max=MAX_SEED, help="Another set of noises; only equal ones are compared."
)


def evaluate(
    run: str = RUN,
    pivot: Path | None = PIVOT,
    suite: str = SUITE,
    out: Path | None = OUT,
    category: list[str] | None = CATEGORY,
    limit: int | None = LIMIT,
    prompts: str | None = PROMPTS,
    metric: list[str] | None = METRIC,
    steps: int | None = STEPS,
    guidance: float | None = GUIDANCE,
    quality: str = QUALITY,
    seed: int = SEED,
    drawn: bool = DRAWN,
) -> None:
    """Draw a suite's prompts and let its metrics judge every picture.

    \b
    lavi evaluate runs/quickstart
    lavi evaluate mini-sd --category one --metric "{kind: clip_score, model: mini-clip}"
    lavi evaluate runs/mine --suite parti --prompts PartiPrompts.tsv
    lavi evaluate pictures-of-another-tool --drawn --suite parti
    RANK=0 WORLD_SIZE=4 lavi evaluate runs/mine      (and RANK=1, 2, 3: each takes a part)

    The scores are printed on stdout, each with its n and its 95 % interval, and written to results.json;
    records.jsonl has one line a picture. A second call goes on where the first was stopped, and a metric that
    is added later judges the pictures that are there. `lavi show metric.KIND` has a metric's options.
    """
    from lavibridge.cli.generate import open_pipeline
    from lavibridge.core.launch import rank_from_environment
    from lavibridge.evaluation.run import evaluate as evaluate_bridge
    from lavibridge.evaluation.suite import read_suite
    from lavibridge.generation.quality import read_quality
    from lavibridge.pivot.folder import pair_of
    from lavibridge.recipes.places import inputs_of, refuse_inside

    part = rank_from_environment()
    pair = pair_of(run, pivot)
    where = _results_of(run, pivot)
    place = out or where / Path(suite).stem
    more = [_metric(each) for each in metric or ()]
    # From the cheap to the dear: before models are loaded.
    refuse_inside(place, "--out", {"the pictures": Path(run)} if drawn else inputs_of(run))
    read_suite(suite)
    read_quality(quality)
    results = evaluate_bridge(
        Path(run) if drawn else open_pipeline(run, pair, own_device()),
        suite,
        place,
        categories=category or None,
        limit=limit,
        prompts=prompts,
        metrics=more,
        steps=steps,
        guidance=guidance,
        quality=quality,
        seed=seed,
        part=part,
    )
    for line in _lines(results.get("metrics", {})):
        print(line)


def _results_of(run: str, pivot: Path | None) -> Path:
    """Where the suites of a run, of an image model or of a pair of a pivot have their results."""
    from lavibridge.bridge.store import is_saved

    if pivot is not None:
        return pivot / "evaluation" / run.replace("/", "_")
    if is_saved(Path(run)):
        return Path(run) / "evaluation"
    return Path("runs") / "evaluation" / Path(run).name


def _metric(text: str) -> str | dict[str, Any]:
    """A kind, or options in YAML's short form."""
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.yaml_text import parse_yaml

    found = parse_yaml(text, f"--metric: {text!r}")
    if not isinstance(found, str | dict):
        raise RecipeError(f"--metric: {text!r} is neither a kind nor options such as {{kind: clip_score}}")
    return found


def own_device() -> str:
    """The GPU of this process, where a launcher gives each its own."""
    import torch

    from lavibridge.core.launch import local_rank

    local = local_rank()
    if local is None or not torch.cuda.is_available():
        return "auto"
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _lines(metrics: dict[str, Any]) -> list[str]:
    """A line for each figure: metric, category, n, value and interval."""
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
