"""On Ctrl-C, SIGTERM or SIGHUP, training finishes the step and writes a checkpoint; a second one stops it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from lavibridge.core.log import console
from lavibridge.core.signals import termination_signals


class InterruptSignals:
    """Remembers the signal that arrived, if any."""

    def __init__(self) -> None:
        self.by: int | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: remember it, and restore the default handlers for the next one."""
        self.by = number
        for each in termination_signals():
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
        console.print("stopping after this step with a checkpoint; repeat the signal to stop at once")

    def share(self, largest: Callable[[int], int]) -> bool:
        """Whether any process has received a signal; all adopt it, so that they leave together."""
        found = largest(self.by or 0)
        if found:
            self.by = found
        return bool(found)

    def leave(self) -> None:
        """End the program after a signal: KeyboardInterrupt (130) for Ctrl-C, else exit code 128 + number."""
        if self.by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.by is not None:
            raise SystemExit(128 + self.by)


@contextmanager
def watch_signals() -> Iterator[InterruptSignals]:
    """Collect signals during training, and restore the earlier handlers afterwards."""
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
