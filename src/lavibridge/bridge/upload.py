"""Prepares the folder that `lavi push` uploads: the saved bridge of a run, sample images, a model card."""

import shutil
from pathlib import Path

from lavibridge.bridge.hub import SAMPLES, write_hub_card
from lavibridge.bridge.saved_bridge import find_saved_bridge, read_saved_bridge
from lavibridge.core.files import read_json
from lavibridge.core.paths import expand_path


def prepare_upload(run: Path, folder: Path, repo_id: str, license: str | None) -> dict[str, int]:
    """Copy the saved bridge of a run, its newest sample images and a model card into ``folder``.

    Returns the size in bytes of each file. Raises RunError if there is no complete bridge, and errors as
    `write_hub_card` does.
    """
    saved = find_saved_bridge(expand_path(run))
    read_saved_bridge(saved)  # which compares all hashes
    for name in ("bridge.json", *read_json(saved / "bridge.json")["files"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(saved / name, folder / name)
    sheets = sorted(
        expand_path(run).glob("samples/step-*.png"), key=lambda path: int(path.stem.removeprefix("step-"))
    )
    if sheets:
        shutil.copyfile(sheets[-1], folder / SAMPLES)
    write_hub_card(folder, repo_id, license)
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
