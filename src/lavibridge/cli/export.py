"""`lavi export`: writes a trained bridge as one file, or in the formats of other tools."""

from pathlib import Path

import typer

_RUN = typer.Argument(
    metavar="RUN",
    help="A run folder, a checkpoint, or a saved bridge; or LANGUAGE+VISION, two models of a pivot.",
)
_FORMAT = typer.Option(
    ..., "--format", "-f", metavar="FORMAT", help="bridge, peft, diffusers, comfyui or kohya."
)
_OUT = typer.Option(
    ...,
    "--out",
    "-o",
    metavar="PLACE",
    help="New .safetensors file for `bridge`; else a new or empty folder.",
)
_PIVOT = typer.Option(
    None,
    "--pivot",
    metavar="FOLDER",
    help="Pivot that LANGUAGE+VISION belong to (see `lavi pivot`).  [default: the one in the package]",
)


def export(run: str = _RUN, format: str = _FORMAT, out: Path = _OUT, pivot: Path | None = _PIVOT) -> None:
    """Write a bridge as one file, or for other tools.

    \b
    lavi export runs/quickstart --format bridge --out my-bridge.safetensors
    lavi export mini-bert+mini-pixart --format bridge --out pair.safetensors
    lavi export runs/quickstart --format peft --out exported/peft
    lavi export runs/quickstart --format diffusers --out exported/pipeline
    lavi export runs/quickstart --format comfyui --out exported/comfyui

    \b
    bridge     one file with connector, LoRA and settings: for `lavi generate`, Python and the ComfyUI nodes
    peft       both LoRAs in PEFT's layout, and the connector
    diffusers  a folder for DiffusionPipeline.from_pretrained, LoRA merged into the denoiser
    comfyui    the denoiser's LoRA as one file with ComfyUI's names
    kohya      the same with the names of kohya's scripts; U-Nets only

    Only `diffusers` contains a frozen model. With the last three formats the bridge must still encode the
    prompts: see the README.md of the diffusers format. Prints the output's path on stdout.
    """
    from lavibridge.bridge import Bridge
    from lavibridge.interop.export import export as export_bridge
    from lavibridge.interop.export import export_place, export_saved_bridge
    from lavibridge.pivot import compose
    from lavibridge.pivot.folder import pivot_and_pair
    from lavibridge.recipes.input_paths import input_paths_of, refuse_output_inside_inputs

    export_place(format, out)  # early: before models load
    pair = pivot_and_pair(run, pivot)
    refuse_output_inside_inputs(out, "--out", input_paths_of(run))
    if format == "bridge" and pair is None:
        print(export_saved_bridge(run, out))
        return
    bridge = Bridge.from_pretrained(run, "cpu") if pair is None else compose(*pair)
    print(export_bridge(bridge, format, out))
