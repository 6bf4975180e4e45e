"""Asks once whether the hub answers, so that without a network nobody waits for it file by file.

The hub's client tries each file six times, and gives up after 23 seconds. A recipe, a model and its tokenizer
are a dozen files.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from time import monotonic

PATIENCE = 5.0
"""Seconds that the hub has to answer."""
_VALID = 60.0
"""Seconds for which an answer, or its absence, holds."""
_asked: dict[str, tuple[float, str | None]] = {}
"""For each address, when it was asked and why it did not answer, or None if it did."""


def is_local_only(source: str | PathLike[str]) -> bool:
    """Whether only local files of ``source``, a folder or a hub id, are available.

    That is so for a folder, if HF_HUB_OFFLINE is set, and if the hub does not answer. Nobody is asked about a
    folder.
    """
    if Path(source).is_dir():
        return True
    from huggingface_hub import is_offline_mode

    return is_offline_mode() or why_hub_is_unreachable() is not None


@contextmanager
def local_files_only(source: str | PathLike[str]) -> Iterator[None]:
    """A context in which the hub's client does not wait for ``source`` if only local files are available.

    It is for libraries that take no such argument.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or is_local_only(source)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def why_hub_is_unreachable() -> str | None:
    """Return why the hub does not answer, or None if it does; asks at most once a minute."""
    from huggingface_hub import constants

    address = constants.ENDPOINT
    at, reason = _asked.get(address, (-_VALID, None))
    if monotonic() - at >= _VALID:
        reason = why_unreachable(address)
        _asked[address] = (monotonic(), reason)
    return reason


def why_unreachable(address: str) -> str | None:
    """Return why no server answers at an address within a few seconds, or None if one does.

    It uses the client of the hub's library, with its proxies and certificates.
    """
    from huggingface_hub import get_session

    answers: Queue[str | None] = Queue()

    def ask() -> None:
        try:
            status = get_session().head(address, timeout=PATIENCE).status_code
            # The server answers, unless a proxy blocks the way.
            answers.put(f"status {status}" if status in (403, 407) or status >= 500 else None)
        except Exception as error:  # the client raises errors of any network library
            answers.put(str(error) or type(error).__name__)

    Thread(target=ask, daemon=True).start()  # a name look-up has no time limit of its own
    try:
        return answers.get(timeout=PATIENCE)
    except Empty:
        return f"no answer in {PATIENCE:g} s"
