"""`lavi import`: turns released weights into a saved bridge."""

from pathlib import Path

import typer

_FORMAT = typer.Argument(metavar="FORMAT", help="lavi-bridge, ella or rouwei.")
_PATH = typer.Argument(
    metavar="PATH",
    help="lavi-bridge: the folder with lora_vis.pt, lora_text.pt and adapter/; ella and rouwei: the "
    ".safetensors file.",
)
_LANGUAGE = typer.Option(..., "--language", metavar="MODEL", help="The language model it was trained with.")
_VISION = typer.Option(..., "--vision", metavar="MODEL", help="The vision model it was trained with.")
_TEMPLATE = typer.Option(
    None,
    "--template",
    metavar="TEXT",
    help="Text around every prompt, with {prompt} in it, in place of the published one; \\n is a line break.",
)
_OUT = typer.Option(..., "--out", "-o", metavar="FOLDER", help="Folder of the saved bridge; new or empty.")


def import_released(
    format: str = _FORMAT,
    path: Path = _PATH,
    language: str = _LANGUAGE,
    vision: str = _VISION,
    template: str | None = _TEMPLATE,
    out: Path = _OUT,
) -> None:
    """Turn released weights of LaVi-Bridge, ELLA or RouWei's adapters into a bridge.

    \b
    lavi import lavi-bridge t5_unet --language t5-large --vision stable-diffusion-v1-4 --out runs/t5_unet
    lavi import ella ella-sd1.5-tsc-t5xl.safetensors --language flan-t5-xl --vision sd15 --out runs/ella
    lavi import rouwei t5gemma.safetensors --language t5gemma-2b-2b-ul2 --vision rouwei-0.8 --out runs/rouwei

    A MODEL is a folder or a hub id. Checks every name and shape, and applies the settings of the published
    training (tokens, padding, read-out). The bridge refers to the models and does not copy them. Prints the
    folder's path on stdout; generate with it: lavi generate FOLDER "a prompt".
    """
    from lavibridge.core.files import require_empty_folder, write_folder_atomic
    from lavibridge.core.lock import hold_lock
    from lavibridge.interop.released import import_released as import_bridge
    from lavibridge.recipes.input_paths import input_paths_of, refuse_output_inside_inputs

    folder = require_empty_folder(out)
    for source in (language, vision):
        refuse_output_inside_inputs(folder, "--out", input_paths_of(source))
    reader = {"source": language}
    if template is not None:
        reader["template"] = template.replace("\\n", "\n")
    with hold_lock(folder), write_folder_atomic(folder):
        import_bridge(format, path, reader, vision, device="cpu").save_pretrained(folder)
    print(folder)
