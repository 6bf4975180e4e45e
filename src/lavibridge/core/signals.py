"""The signals that ask a program to end: Ctrl-C, SIGTERM, and SIGHUP, which a lost connection sends.

A SIGHUP that `nohup` has had ignored stays ignored. Without anyone who knows better, SIGTERM and SIGHUP leave
as Ctrl-C does, through every `finally`: what is half done is put in order, and the exit code is 128 + number.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


def termination_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask this program to end."""
    found = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        found.append(hangup)
    return tuple(found)


def exit_on_signals() -> None:
    """Have the signals that would end this program at once raise SystemExit, the first time."""
    for number in termination_signals():
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)


@contextmanager
def default_signal_handlers() -> Iterator[None]:
    """Within it they end the program at once: for waiting in code that hears of no exception."""
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
