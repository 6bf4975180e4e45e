"""Writes the SHA-256 of every file of a model folder to its hashes.json, which `lavi doctor` compares.

python -m lavibridge.zoo.hashes src/lavibridge/world/models/*      after adding a model to ship
"""

import sys
from pathlib import Path

from lavibridge.core.files import file_sha256, write_json

_FILE = "hashes.json"


def write_model_hashes(folder: Path) -> Path:
    """Write `folder`/hashes.json: relative path -> SHA-256 of every other file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _FILE)
    write_json(folder / _FILE, {path.relative_to(folder).as_posix(): file_sha256(path) for path in files})
    return folder / _FILE


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if Path(name).is_dir():
            write_model_hashes(Path(name))
