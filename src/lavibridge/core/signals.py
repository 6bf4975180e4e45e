"""The signals that end a program: Ctrl-C, SIGTERM, and SIGHUP from a lost connection.

A SIGHUP that `nohup` ignores stays ignored. Unless a handler is installed, SIGTERM and SIGHUP raise
SystemExit as Ctrl-C raises KeyboardInterrupt: every `finally` runs, and the exit code is 128 + signal number.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


def termination_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask this program to end."""
    found = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


def exit_on_signals() -> None:
    """Make the signals that would kill this program raise SystemExit the first time."""
    for number in termination_signals():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)


@contextmanager
def default_signal_handlers() -> Iterator[None]:
    """Let the signals kill the program at once within the block, for native code that sees no exception."""
    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in termination_signals()}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)
