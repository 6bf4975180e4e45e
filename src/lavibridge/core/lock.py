"""Folder locks: one process and its children write into a folder, until the process ends.

    FOLDER/.lock      an operating-system lock; its text describes the owner
    FOLDER/.lock-R    the lock of rank R among processes that share work without a process group

The system releases a lock when its owner dies, so a crash leaves a file behind but no lock. On a network file
system the lock works across machines if the mount supports locks at all. Readers need no lock.
"""

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from errno import EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP
from pathlib import Path
from threading import get_ident

from filelock import FileLock, Timeout

from lavibridge.core.errors import RunError
from lavibridge.core.log import console
from lavibridge.core.paths import require_file_path
from lavibridge.core.process_rank import SINGLE_PROCESS, ProcessRank

_NAME = ".lock"
_SHORTLY = 0.5
"""Seconds to wait for a brief owner: one that only checks the lock, or is about to release it."""
_FOR_EVER = -1.0
_HAS_NO_LOCKS = (EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP)
_OWNED: set[tuple[Path, int]] = set()
"""Locks that threads of this process own: a training shares the lock of the quickstart around it."""


@contextmanager
def hold_lock(folder: Path, part: ProcessRank = SINGLE_PROCESS, *, waits: str = "") -> Iterator[None]:
    """Own the right to write into a folder; creates the folder, and removes it again if it stays empty.

    Ranks of shared work hold it side by side. Raises RunError naming the owner if the folder is in use; with
    `waits`, prints that sentence and waits instead. A thread may hold a folder repeatedly.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, but the output is a folder: choose another")
    name = _NAME if part.world_size == 1 else f"{_NAME}-{part.rank}"
    with _hold(folder.resolve() / name, folder, waits) as is_new:
        for other in _others(folder.resolve(), part) if is_new else ():
            with _lock(other) as is_free:
                if not is_free:
                    raise _in_use(other, folder)
        yield


@contextmanager
def hold_file_lock(file: Path) -> Iterator[None]:
    """Own the right to write a file. Raises RunError naming the owner if it is in use."""
    place = require_file_path(file).resolve()
    with _hold(place.with_name(f".{place.name}{_NAME}"), file, ""):
        yield


@contextmanager
def _hold(path: Path, target: Path, waits: str) -> Iterator[bool]:
    """Hold one lock; yields False if this thread held it before."""
    own = (path, get_ident())
    if own in _OWNED:
        yield False
        return
    made = [each for each in path.parents if not each.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        path.parent.mkdir(parents=True, exist_ok=True)
        if _acquire(path, target, stack, waits):
            with suppress(OSError):  # information only: a full disk raises where it matters
                path.write_text(_owner(), encoding="utf-8")
        _OWNED.add(own)
        stack.callback(_OWNED.discard, own)
        yield True


def is_lock_file(path: Path) -> bool:
    """Whether a file in a folder is only its lock."""
    return path.name == _NAME or path.name.startswith(f"{_NAME}-")


def _acquire(path: Path, target: Path, stack: ExitStack, waits: str) -> bool:
    """Acquire a lock until the stack closes; False, with a message, if the file system has none."""
    try:
        if stack.enter_context(_lock(path)):
            return True
        if not waits:
            raise _in_use(path, target)
        console.print(f"{waits} ({_holder(path)}); waiting for it", soft_wrap=True)
        return stack.enter_context(_lock(path, _FOR_EVER))
    except OSError as error:
        if error.errno not in _HAS_NO_LOCKS:
            raise
        console.print(
            f"note: {target} is on a file system without locks ({error.strerror}): make sure that no other "
            "process writes there",
            soft_wrap=True,
        )
        return False


@contextmanager
def _lock(path: Path, seconds: float = _SHORTLY) -> Iterator[bool]:
    """Try to acquire a lock; yields whether that succeeded. Releases it and removes its file at the end."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.05)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # Remove the file under the lock: a waiter with the file open notices that it is gone and retries.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _others(folder: Path, part: ProcessRank) -> list[Path]:
    """Return the locks that exclude this one; check them after acquiring it, so that one of two rivals
    notices."""
    return sorted(folder.glob(f"{_NAME}-*" if part.world_size == 1 else _NAME))


def _in_use(path: Path, target: Path) -> RunError:
    return RunError(f"{target} is in use: {_holder(path)}. Wait for it, stop it, or choose another --out")


def _owner() -> str:
    """Describe this process as JSON."""
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": platform.node(),
            "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0] or "python").name, *sys.argv[1:]]),
        },
        ensure_ascii=False,
    )


def _holder(path: Path) -> str:
    """Describe the owner of a lock in words."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return "process {pid} on {host} has been writing to it since {since} ({command})".format(**owner)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process is writing to it"


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were created but not used, innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
