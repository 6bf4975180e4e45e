"""Finds the files of benchmarks on this machine or on the hub; an error names each missing one.

    prompts.txt      ~/geneval/evaluation_metadata.jsonl      hf://datasets/OWNER/NAME/FILE

The package ships no benchmark files: their licences differ, and they change.
"""

from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.core.hub import is_local_only
from lavibridge.core.paths import expand_path

_HUB = "hf://"


def find_benchmark_file(path: str | None, what: str, where: str) -> Path:
    """Return a local file or folder, or download a file from the hub.

    Raises DataError, which names `what` is missing and `where` to get it.
    """
    if path is None:
        raise DataError(
            f"the package does not ship {what}: get it from {where} and set --prompts to its path"
        )
    if path.startswith(_HUB):
        return _from_hub(path, what, where)
    found = expand_path(path)
    if not found.exists():
        raise DataError(f"{what}: there is no '{path}'; get it from {where}")
    return found


def read_benchmark_text(path: Path) -> str:
    """Read a UTF-8 file. Raises DataError if it is not one."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: give a text file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None


def read_benchmark_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a text file, stripped. Raises DataError if it is not text or has none."""
    # Not splitlines(): form feeds and line separators inside a prompt are part of it.
    lines = [line.strip() for line in read_benchmark_text(path).split("\n")]
    found = [line for line in lines if line]
    if not found:
        raise DataError(f"{path} has no lines: expected one prompt or record per line")
    return found


def _from_hub(path: str, what: str, where: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    is_data = path.startswith(f"{_HUB}datasets/")
    parts = path.removeprefix(_HUB).removeprefix("datasets/").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise DataError(f"{what}: '{path}' must be {_HUB}datasets/OWNER/NAME/FILE or {_HUB}OWNER/NAME/FILE")
    try:
        found = hf_hub_download(
            "/".join(parts[:2]),
            parts[2],
            repo_type="dataset" if is_data else "model",
            local_files_only=is_local_only(path),
        )
    except LocalEntryNotFoundError:
        raise DataError(f"{what}: cannot reach the hub for '{path}'; get it from {where}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{what}: the hub refuses '{path}': {reason}") from None
    return Path(found)
