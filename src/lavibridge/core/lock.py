"""Who writes into a folder: one process with its children, until it ends, however it ends.

    FOLDER/.lock      held by the operating system for whoever writes; its text says who that is
    FOLDER/.lock-R    the same of part R of several processes that share a work without being joined

The system lets go of a lock when its holder dies, so that a crash leaves a file behind and no lock. On a
network file system it holds across machines where the mount has locks at all. Whoever only reads needs none.
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
from lavibridge.core.launch import SINGLE_PROCESS, ProcessRank
from lavibridge.core.log import console
from lavibridge.core.paths import as_file

NAME = ".lock"
SHORTLY = 0.5
"""Seconds that a look at another lock, or a holder that is just leaving, may take."""
FOR_EVER = -1.0
HAS_NO_LOCKS = (EINVAL, ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP)
OWNED: set[tuple[Path, int]] = set()
"""Locks that threads of this process hold: what a quickstart holds, its training holds as well."""


@contextmanager
def hold(folder: Path, part: ProcessRank = SINGLE_PROCESS, *, waits: str = "") -> Iterator[None]:
    """Be the only one who writes into a folder; it is made, and removed again if it stays empty.

    Parts of one work hold it beside each other. RunError says who holds it; with `waits`, a sentence that is
    then said, it is waited for. Held twice by one thread is held once.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, and a folder is to be written: name another")
    name = NAME if part.world_size == 1 else f"{NAME}-{part.rank}"
    with _hold(folder.resolve() / name, folder, waits) as is_new:
        for other in _others(folder.resolve(), part) if is_new else ():
            with _lock(other) as is_free:
                if not is_free:
                    raise _in_use(other, folder)
        yield


@contextmanager
def hold_file(file: Path) -> Iterator[None]:
    """Be the only one who writes a file."""
    place = as_file(file).resolve()
    with _hold(place.with_name(f".{place.name}{NAME}"), file, ""):
        yield


@contextmanager
def _hold(path: Path, target: Path, waits: str) -> Iterator[bool]:
    """Hold one lock; whether it was not held by this thread already."""
    own = (path, get_ident())
    if own in OWNED:
        yield False
        return
    made = [each for each in path.parents if not each.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        path.parent.mkdir(parents=True, exist_ok=True)
        if _acquire(path, target, stack, waits):
            with suppress(OSError):  # only a word for others: a full disk is told where it matters
                path.write_text(_owner(), encoding="utf-8")
        OWNED.add(own)
        stack.callback(OWNED.discard, own)
        yield True


def is_lock(path: Path) -> bool:
    """Whether a file in a folder is only its lock."""
    return path.name == NAME or path.name.startswith(f"{NAME}-")


def _acquire(path: Path, target: Path, stack: ExitStack, waits: str) -> bool:
    """Take a lock until the stack is left; False, with a word, where the file system has none."""
    try:
        if stack.enter_context(_lock(path)):
            return True
        if not waits:
            raise _in_use(path, target)
        console.print(f"{waits} ({_holder(path)}); waiting for it", soft_wrap=True)
        return stack.enter_context(_lock(path, FOR_EVER))
    except OSError as error:
        if error.errno not in HAS_NO_LOCKS:
            raise
        console.print(
            f"note: {target} lies on a file system without locks ({error.strerror}): see to it that nothing "
            "else writes there",
            soft_wrap=True,
        )
        return False


@contextmanager
def _lock(path: Path, seconds: float = SHORTLY) -> Iterator[bool]:
    """Whether a lock could be had; it is let go of, and its file removed, at the end."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.05)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        # Under the lock: whoever waits with the file open sees that it is nobody's any more, and begins anew.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _others(folder: Path, part: ProcessRank) -> list[Path]:
    """The locks that must not be held beside one's own: looked at after that, so that one of two sees it."""
    return sorted(folder.glob(f"{NAME}-*" if part.world_size == 1 else NAME))


def _in_use(path: Path, target: Path) -> RunError:
    return RunError(f"{target} is in use: {_holder(path)}. Wait for it, stop it, or name another --out")


def _owner() -> str:
    """What the holder says of itself."""
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
    """Who holds a lock, in words."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return "process {pid} on {host} has written to it since {since} ({command})".format(**told)
    except (OSError, ValueError, KeyError, TypeError):
        return "another process is writing to it"


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were made for nothing, innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
