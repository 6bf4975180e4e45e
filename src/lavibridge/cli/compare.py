"""`lavi compare`: compares two evaluations of one suite, prompt by prompt."""

from pathlib import Path

import typer

_FIRST = typer.Argument(metavar="FIRST", help="A folder that `lavi evaluate` wrote to.")
_SECOND = typer.Argument(metavar="SECOND", help="Another such folder, of the same suite.")
_AS_JSON = typer.Option(False, "--json", help="Print all figures as JSON.")


def compare(first: Path = _FIRST, second: Path = _SECOND, as_json: bool = _AS_JSON) -> None:
    """Compare FIRST with SECOND, over the images that both have.

    \b
    lavi compare runs/a/evaluation/world runs/b/evaluation/world

    Each line has the number of prompts, the mean difference with its 95 % interval, and p: the probability of
    a difference at least as large if there were none (a permutation test with random signs). The evaluations
    must have the same suite version, prompts and metrics.
    """
    import json

    from lavibridge.evaluation.compare import compare_evaluations

    found = compare_evaluations(first, second)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [(name, category, each) for name, by in found["metrics"].items() for category, each in by.items()]
    width = max(len(f"{name} {category}") for name, category, _ in rows)
    for name, category, each in rows:
        said = "no prompt has a score in both"
        if each["n"]:
            said = "{mean:+.4f}   {low:+.4f} to {high:+.4f}   p {p:.4f}".format(**each)
        print(f"{f'{name} {category}':<{width}}  n {each['n']:>5}  {said}")
