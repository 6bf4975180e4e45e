"""`lavi quickstart`: from nothing to a trained, drawing, measured bridge."""

from pathlib import Path

import typer

_LANGUAGE = typer.Option(
    None,
    "--language",
    metavar="SOURCE",
    help="Another language model: a folder, a GGUF file, a hub id, or a name such as minilm.  [default: "
    "mini-llama, shipped]",
)
_OUT = typer.Option(Path("runs/quickstart"), "--out", "-o", metavar="FOLDER", help="Run folder to make.")
_MINUTES = typer.Option(2.0, "--minutes", min=0.02, help="Longest training time.")


def quickstart(language: str | None = _LANGUAGE, out: Path = _OUT, minutes: float = _MINUTES) -> None:
    """Train a small bridge, draw with it, measure it.

    \b
    lavi quickstart
    lavi quickstart --minutes 10 --out runs/longer
    lavi quickstart --language minilm --out runs/minilm

    The bridge goes from a small Llama into a small Stable Diffusion. Everything it needs is in the package;
    no network, no GPU. It ends with a contact sheet, results.json and report.html in the run folder, and with
    the commands to go on.
    """
    from lavibridge.quickstart import quickstart_recipe, run_quickstart

    print(run_quickstart(quickstart_recipe(minutes, language), out))
