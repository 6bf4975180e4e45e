"""`lavi import`: released weights in, a saved bridge out."""

from pathlib import Path

import typer

FORMAT = typer.Argument(metavar="FORMAT", help="lavi-bridge or ella.")
PATH = typer.Argument(
    metavar="PATH",
    help="lavi-bridge: the folder with lora_vis.pt, lora_text.pt and adapter/; ella: the .safetensors file.",
)
LANGUAGE = typer.Option(..., "--language", metavar="MODEL", help="The language model it was trained with.")
VISION = typer.Option(..., "--vision", metavar="MODEL", help="The image model it was trained with.")
OUT = typer.Option(..., "--out", "-o", metavar="FOLDER", help="Folder of the saved bridge; new or empty.")


def import_released(
    format: str = FORMAT, path: Path = PATH, language: str = LANGUAGE, vision: str = VISION, out: Path = OUT
) -> None:
    """Make a bridge of released LaVi-Bridge or ELLA weights.

    \b
    lavi import lavi-bridge t5_unet --language t5-large --vision stable-diffusion-v1-4 --out runs/t5_unet
    lavi import ella ella-sd1.5-tsc-t5xl.safetensors --language flan-t5-xl --vision sd15 --out runs/ella

    A MODEL is a folder or a hub id. Every name and shape is checked, and the settings of the published
    training (tokens, padding, read-out) are set. The models are not copied, only named. The folder's path is
    printed on stdout; draw with it: lavi generate FOLDER "a prompt".
    """
    from lavibridge.core.files import new_folder, whole_folder
    from lavibridge.core.lock import hold
    from lavibridge.interop.released import import_released as import_bridge
    from lavibridge.recipes.places import inputs_of, refuse_inside

    folder = new_folder(out)
    for source in (language, vision):
        refuse_inside(folder, "--out", inputs_of(source))
    with hold(folder), whole_folder(folder):
        import_bridge(format, path, language, vision, device="cpu").save_pretrained(folder)
    print(folder)
