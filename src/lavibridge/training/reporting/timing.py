"""What making the next passes takes, by what is done: so that a run that waits for data can say why."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import final

READING, ENCODING, FEATURES = "reading pictures", "encoding pictures", "language features"


@final
class Timing:
    """Seconds by cause; what one cause does inside another counts for itself only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lock = Lock()  # passes are made in one thread and counted in another

    @contextmanager
    def on(self, cause: str) -> Iterator[None]:
        """Count the time until the end of the block; use it in one thread at a time."""
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
        """What was counted since this was last asked."""
        with self.lock:
            taken, self.seconds = self.seconds, {}
        return taken
