"""The files that benchmarks are made of: here, or on the hub; absent ones are asked for by name.

    prompts.txt      ~/geneval/evaluation_metadata.jsonl      hf://datasets/OWNER/NAME/FILE

Nothing of a benchmark is shipped with the package: licences differ, and files change.
"""

from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.core.paths import at_home

HUB = "hf://"


def find_file(path: str | None, what: str, where: str) -> Path:
    """A file or folder here, or one from the hub.

    DataError says `what` it is that is missing, and from `where` it comes.
    """
    if path is None:
        raise DataError(f"{what} is not shipped: get it from {where} and give its path, with --prompts PATH")
    if path.startswith(HUB):
        return _from_hub(path, what, where)
    found = at_home(path)
    if not found.exists():
        raise DataError(f"{what}: there is no '{path}'; it comes from {where}")
    return found


def read_text(path: Path) -> str:
    """The text of a file; DataError where it is none."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; a text file is needed")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything; DataError where it is no text or holds nothing."""
    # Not splitlines(): form feeds and line separators inside a prompt are part of it.
    lines = [line.strip() for line in read_text(path).split("\n")]
    found = [line for line in lines if line]
    if not found:
        raise DataError(f"{path} holds no lines")
    return found


def _from_hub(path: str, what: str, where: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    is_data = path.startswith(f"{HUB}datasets/")
    parts = path.removeprefix(HUB).removeprefix("datasets/").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise DataError(f"{what}: '{path}' should be {HUB}datasets/OWNER/NAME/FILE or {HUB}OWNER/NAME/FILE")
    try:
        found = hf_hub_download("/".join(parts[:2]), parts[2], repo_type="dataset" if is_data else "model")
    except LocalEntryNotFoundError:
        raise DataError(f"{what}: the hub cannot be reached for '{path}'; it comes from {where}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{what}: the hub refuses '{path}': {reason}") from None
    return Path(found)
