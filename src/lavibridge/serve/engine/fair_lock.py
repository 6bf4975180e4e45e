"""A lock that waiting threads get in turn, even from a thread that takes it again at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class FairLock:
    """A thread that waits stands at the entrance, where the last owner has to queue up behind it."""

    def __init__(self) -> None:
        self._entrance, self._lock = Lock(), Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock in a block."""
        with self._entrance:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
