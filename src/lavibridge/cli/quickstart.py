"""`lavi quickstart`: trains a small bridge, generates with it and evaluates it, in minutes."""

from pathlib import Path

import typer

_LANGUAGE = typer.Option(
    None,
    "--language",
    metavar="SOURCE",
    help="Another language model: a folder, a GGUF file, a hub id, or a name such as minilm.  [default: "
    "mini-llama, shipped]",
)
_OUT = typer.Option(Path("runs/quickstart"), "--out", "-o", metavar="FOLDER", help="Run folder to create.")
_MINUTES = typer.Option(2.0, "--minutes", min=0.02, help="Maximum training time, in minutes.")


def quickstart(language: str | None = _LANGUAGE, out: Path = _OUT, minutes: float = _MINUTES) -> None:
    """Train a small bridge, generate images with it, and evaluate it.

    \b
    lavi quickstart
    lavi quickstart --minutes 10 --out runs/longer
    lavi quickstart --language minilm --out runs/minilm

    The bridge connects a small Llama to a small Stable Diffusion. The package contains everything it needs;
    it uses no network and no GPU. Writes a contact sheet, results.json and report.html into the run folder,
    and prints the next commands to try.
    """
    from lavibridge.quickstart import quickstart_recipe, run_quickstart

    print(run_quickstart(quickstart_recipe(minutes, language), out))
