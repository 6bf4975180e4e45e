"""Ctrl-C, SIGTERM and SIGHUP: the step is finished and a checkpoint written; a second one stops at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from lavibridge.core.log import console
from lavibridge.core.signals import termination_signals


class InterruptSignals:
    """Which signal has come, if any."""

    def __init__(self) -> None:
        self.by: int | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The handler: remember the signal, and let the next one act as usual."""
        self.by = number
        for each in termination_signals():
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        console.print("stopping after this step and writing a checkpoint; once more to stop at once")

    def share(self, largest: Callable[[int], int]) -> bool:
        """Whether any process has a signal; all take it for their own, and so leave together and alike."""
        found = largest(self.by or 0)
        if found:
            self.by = found
        return bool(found)

    def leave(self) -> None:
        """End the program as the signal asks: Ctrl-C as KeyboardInterrupt (130), others with 128 + number."""
        if self.by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.by is not None:
            raise SystemExit(128 + self.by)


@contextmanager
def watch_signals() -> Iterator[InterruptSignals]:
    """Collect the signals while training; the handlers that were there come back afterwards."""
    interrupted = InterruptSignals()
    if current_thread() is not main_thread():  # only the main thread may set handlers
        yield interrupted
        return
    before = {number: signal.signal(number, interrupted.receive) for number in termination_signals()}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
