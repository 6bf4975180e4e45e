"""Measures how long each activity of data loading takes, to explain why a run waits for data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import final

READING, ENCODING, FEATURES = "reading pictures", "encoding pictures", "language features"


@final
class Timing:
    """Seconds by activity; nested activities do not count for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lock = Lock()  # one thread loads passes and another reads their times

    @contextmanager
    def on(self, cause: str) -> Iterator[None]:
        """Measure the block; one thread at a time."""
        before = sum(self.seconds.values())
        begun = perf_counter()
        try:
            yield
        finally:
            passed = perf_counter() - begun
            with self.lock:
                inside = sum(self.seconds.values()) - before
                self.seconds[cause] = self.seconds.get(cause, 0.0) + max(0.0, passed - inside)

    def take(self) -> Mapping[str, float]:
        """Return the seconds since the last call."""
        with self.lock:
            taken, self.seconds = self.seconds, {}
        return taken
