"""`lavi evaluate`: a run in, scores with intervals out."""

from pathlib import Path

import typer

RUN = typer.Argument(metavar="RUN", help="A run folder or a folder made by save_pretrained.")
SUITE = typer.Option("world", "--suite", help="A suite's name or a path to its YAML file.")
OUT = typer.Option(None, "--out", "-o", metavar="FOLDER", help="Where results go.  [default: the run folder]")


def evaluate(run: Path = RUN, suite: str = SUITE, out: Path | None = OUT) -> None:
    """Draw a suite's prompts and judge every picture.

    \b
    lavi evaluate runs/quickstart
    lavi evaluate runs/quickstart --suite world --out runs/quickstart/world

    The scores are printed on stdout, each with its n and its 95 % interval, and written to results.json;
    records.jsonl has one line a picture. A second call goes on where the first was stopped.
    """
    from lavibridge.bridge import Bridge
    from lavibridge.evaluation.run import evaluate as evaluate_bridge

    results = evaluate_bridge(Bridge.from_pretrained(run), suite, out or run)
    width = max(len(name) for name in results["categories"])
    for name, score in results["categories"].items():
        shown = "{mean:6.1%}   {low:.1%} to {high:.1%}".format(**score) if score["n"] else "not scored"
        print(f"{name:<{width}}  n {score['n']:>5}  {shown}")
