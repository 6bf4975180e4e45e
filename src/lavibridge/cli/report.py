"""`lavi report`: writes one page about one or more runs."""

from pathlib import Path

import typer

_RUNS = typer.Argument(
    metavar="RUN...", help="One or more run folders; the first is compared with the others."
)
_OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FILE",
    help="File of the page; a .json file next to it holds its numbers.  "
    "[default: RUN/report.html, or report.html for several]",
)


def report(runs: list[Path] = _RUNS, out: Path | None = _OUT) -> None:
    """Write a report on one or more runs as one self-contained HTML page.

    \b
    lavi report runs/quickstart
    lavi report runs/first runs/second --out comparison.html

    The page shows what was trained, its scores with intervals and paired differences, images of the same
    prompts side by side, the best and worst images with their scores, curves, the settings behind each
    number, and the text of a model card. It needs no network and no other file; report.json has all its
    numbers. A run may still be training. Prints the page's path on stdout, and lists missing parts on stderr.
    """
    from lavibridge.report.page import write_report

    page = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    print(write_report(runs, page))
