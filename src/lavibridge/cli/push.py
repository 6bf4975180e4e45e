"""`lavi push`: uploads a trained bridge to the Hugging Face hub, or shows what it would upload."""

from pathlib import Path

import typer

_RUN = typer.Argument(metavar="RUN", help="A run folder, a checkpoint, or a saved bridge.")
_REPO = typer.Argument(metavar="OWNER/NAME", help="The repository; it is created if it does not exist.")
_LICENSE = typer.Option(
    None, "--license", metavar="ID", help="The hub's name of the bridge's licence, such as apache-2.0."
)
_PRIVATE = typer.Option(False, "--private", help="Create a private repository.")
_DRY_RUN = typer.Option(False, "--dry-run", help="Show the files and the model card; upload nothing.")


def push(
    run: Path = _RUN,
    repo: str = _REPO,
    license: str | None = _LICENSE,
    private: bool = _PRIVATE,
    dry_run: bool = _DRY_RUN,
) -> None:
    """Upload a bridge with a model card to the Hugging Face hub.

    \b
    lavi push runs/mine somebody/mine --license apache-2.0 --dry-run
    lavi push runs/mine somebody/mine --license apache-2.0

    The upload holds the connector, both LoRAs, LoRA files in the frozen weights, the newest sample images and
    a model card. It names the two models and does not contain them. The licences of both models apply to the
    bridge as well: check them first. Log in with `hf auth login`, or set HF_TOKEN. Prints the commit's URL on
    stdout; a dry run prints the files and the card, and needs no network.
    """
    from tempfile import TemporaryDirectory

    from lavibridge.bridge.hub import upload_to_hub
    from lavibridge.bridge.upload import prepare_upload

    with TemporaryDirectory() as place:
        folder = Path(place)
        files = prepare_upload(run, folder, repo, license)
        if not dry_run:
            print(upload_to_hub(folder, repo, private=private or None, token=None, message="Upload a bridge"))
            return
        for name, size in files.items():
            print(f"{size:>14,} bytes  {name}")
        print(f"{sum(files.values()):>14,} bytes in {len(files)} files for {repo}; nothing was uploaded\n")
        print((folder / "README.md").read_text(encoding="utf-8"))
