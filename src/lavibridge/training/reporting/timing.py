"""How long loading data takes, by activity, so that a run that waits for data can name the cause."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import final

READING, ENCODING, FEATURES = "reading pictures", "encoding pictures", "language features"


@final
class Timing:
    """Seconds by activity; an activity inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lock = Lock()  # passes are made in one thread and counted in another

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
