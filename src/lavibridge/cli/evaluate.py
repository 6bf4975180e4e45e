"""`lavi evaluate`: a run in, scores with intervals out."""

from pathlib import Path

import typer

RUN = typer.Argument(
    metavar="RUN",
    help="A run folder, a folder made by save_pretrained; or an image model, "
    "shipped (mini-sd) or a folder, which then is measured with its own text encoder.",
)
SUITE = typer.Option("world", "--suite", help="A suite's name or a path to its YAML file.")
OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FOLDER",
    help="Where results go.  [default: the run folder; for an image model runs/evaluation/NAME]",
)
CATEGORY = typer.Option(None, "--category", "-c", help="Only this category; may be given again.")
LIMIT = typer.Option(None, "--limit", "-n", min=1, help="At most so many prompts of each category.")


def evaluate(
    run: str = RUN,
    suite: str = SUITE,
    out: Path | None = OUT,
    category: list[str] | None = CATEGORY,
    limit: int | None = LIMIT,
) -> None:
    """Draw a suite's prompts and judge every picture.

    \b
    lavi evaluate runs/quickstart
    lavi evaluate runs/quickstart --suite world --out runs/quickstart/world
    lavi evaluate mini-sd --category one

    The scores are printed on stdout, each with its n and its 95 % interval, and written to results.json;
    records.jsonl has one line a picture. A second call goes on where the first was stopped.
    """
    from lavibridge.bridge import Bridge
    from lavibridge.bridge.store import is_saved
    from lavibridge.evaluation.run import evaluate as evaluate_bridge

    folder = Path(run) if is_saved(Path(run)) else Path("runs/evaluation") / Path(run).name
    results = evaluate_bridge(
        Bridge.open(run), suite, out or folder, categories=category or None, limit=limit
    )
    width = max(len(name) for name in results["categories"])
    for name, score in results["categories"].items():
        shown = "{mean:6.1%}   {low:.1%} to {high:.1%}".format(**score) if score["n"] else "not scored"
        print(f"{name:<{width}}  n {score['n']:>5}  {shown}")
