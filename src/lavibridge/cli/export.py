"""`lavi export`: writes a trained bridge in the formats of other tools."""

from pathlib import Path

import typer

_RUN = typer.Argument(metavar="RUN", help="A run folder, a checkpoint, or a saved bridge.")
_FORMAT = typer.Option(..., "--format", "-f", metavar="FORMAT", help="peft, diffusers, comfyui or kohya.")
_OUT = typer.Option(..., "--out", "-o", metavar="FOLDER", help="Output folder, new or empty.")


def export(run: Path = _RUN, format: str = _FORMAT, out: Path = _OUT) -> None:
    """Write a bridge for other tools.

    \b
    lavi export runs/quickstart --format peft --out exported/peft
    lavi export runs/quickstart --format diffusers --out exported/pipeline
    lavi export runs/quickstart --format comfyui --out exported/comfyui

    \b
    peft       both LoRAs in PEFT's layout, and the connector
    diffusers  a folder for DiffusionPipeline.from_pretrained, LoRA merged into the denoiser
    comfyui    the denoiser's LoRA as one file with ComfyUI's names
    kohya      the same with the names of kohya's scripts; U-Nets only

    The bridge must still encode the prompts, because no other tool supports its language model and connector:
    see the README.md of the diffusers format. Prints the folder's path on stdout.
    """
    from lavibridge.bridge import Bridge
    from lavibridge.interop.export import export as export_bridge
    from lavibridge.interop.export import export_folder
    from lavibridge.recipes.input_paths import input_paths_of, refuse_output_inside_inputs

    export_folder(format, out)  # early: before models load
    refuse_output_inside_inputs(out, "--out", input_paths_of(run))
    print(export_bridge(Bridge.from_pretrained(run, "cpu"), format, out))
