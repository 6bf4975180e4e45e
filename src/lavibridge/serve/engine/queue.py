"""The queue: accepts jobs up to a bound, hands their pictures to the worker, and notifies listeners.

It is thread-safe. The clients' side (the event loop) and the worker's side (the drawing thread) meet here and
nowhere else.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Condition, RLock

from lavibridge.core.errors import LaviError
from lavibridge.serve.engine.job import Job, JobImage, JobStatus
from lavibridge.serve.limits import Limits

_FIRST_GUESS = 1.0
"""Seconds for a picture, before any was drawn."""
QueuedImage = tuple[Job, JobImage]


class QueueFull(LaviError):
    """The queue is full; ``seconds`` is the time after which to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full: ask again in {seconds} s")
        self.seconds = seconds


class ServerClosing(LaviError):
    """The server is stopping."""


class Queue:
    """Jobs that wait, jobs that are being drawn, and the latest that are over."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_closing = False
        self.drawn = 0
        """Pictures finished since the start."""
        self.pace = _FIRST_GUESS
        """A running mean of the seconds between finished pictures while there is work."""
        self._changed = Condition(RLock())  # some methods call others
        self._waiting: deque[QueuedImage] = deque()
        self._drawing: list[QueuedImage] = []
        self._jobs: dict[str, Job] = {}

    def submit(self, job: Job) -> Job:
        """Accept a whole job; raises QueueFull or ServerClosing."""
        with self._changed:
            if self.is_closing:
                raise ServerClosing(
                    "the server is stopping and takes no more jobs: ask again when it is back"
                )
            load = len(self._waiting) + len(self._drawing)
            if load + len(job.pictures) > self.limits.queue:
                raise QueueFull(min(600, max(1, math.ceil(load * self.pace))))
            self._jobs[job.id] = job
            self._waiting.extend((job, picture) for picture in job.pictures)
            self._forget()
            self._changed.notify_all()
        return job

    def find(self, name: str) -> Job | None:
        """The job with an id; each look-up keeps it alive."""
        with self._changed:
            job = self._jobs.get(name)
            if job is not None:
                job.seen = time.monotonic()
            return job

    def cancel(self, job: Job) -> None:
        """Stop a job; its place becomes free within a step."""
        self.end(job, "cancelled", "cancelled by the client")

    def forget(self, job: Job) -> None:
        """Drop a job that is over, with its pictures."""
        with self._changed:
            self._jobs.pop(job.id, None)

    def end(self, job: Job, state: JobStatus, error: str | None = None, is_own_fault: bool = False) -> None:
        """End a job that is not over."""
        with self._changed:
            if not job.is_over:
                job.state, job.error, job.is_own_fault = state, error, is_own_fault
                self._waiting = deque(place for place in self._waiting if place[0] is not job)
                self._drawing = [place for place in self._drawing if place[0] is not job]
                self._notify(job)
                self._changed.notify_all()

    def take(self) -> list[QueuedImage]:
        """For the worker: wait for work and return the pictures to draw now; none means stop.

        Pictures come in the order of their requests, up to the batch size.
        """
        with self._changed:
            while True:
                self._cancel_abandoned()
                while self._waiting and len(self._drawing) < self.limits.batch_size:
                    job, picture = self._waiting.popleft()
                    self._drawing.append((job, picture))
                    if job.state == "waiting":
                        job.state = "drawing"
                        self._notify(job)
                if self._drawing or self.is_closing:
                    return list(self._drawing)
                self._changed.wait()

    def stepped(self, job: Job, picture: JobImage, preview: bytes | None) -> None:
        """For the worker: a picture has taken one more step."""
        with self._changed:
            picture.step += 1
            picture.preview = preview or picture.preview
            self._notify(job)

    def finished(self, job: Job, picture: JobImage, file: bytes, seconds: float) -> None:
        """For the worker: a picture is done, ``seconds`` of work after the one before."""
        with self._changed:
            if job.is_over:
                return
            picture.file, picture.preview = file, None
            self._drawing = [place for place in self._drawing if place[1] is not picture]
            self.drawn += 1
            self.pace += 0.2 * (seconds - self.pace)
            if all(each.file is not None for each in job.pictures):
                self.end(job, "done")
            self._notify(job)

    def close(self) -> None:
        """Let pictures finish that are being drawn; reject jobs that wait and new ones."""
        with self._changed:
            self.is_closing = True
            begun = {id(job) for job, _ in self._drawing}
            for job in {id(job): job for job, _ in self._waiting}.values():
                if id(job) not in begun:
                    self.end(job, "rejected", "the server is stopping: ask again when it is back")
            self._changed.notify_all()

    def listen(self, job: Job, listener: Callable[[], None]) -> None:
        """Call ``listener``, from any thread, whenever the job changes."""
        with self._changed:
            job.listeners.append(listener)

    def leave(self, job: Job, listener: Callable[[], None]) -> None:
        """Stop listening; cancels a job that loses its last listener."""
        with self._changed:
            job.listeners.remove(listener)
            if not job.listeners:
                self.end(job, "cancelled", "the client went away")

    def counts(self) -> tuple[int, int]:
        """Number of pictures that wait, and that are being drawn."""
        with self._changed:
            return len(self._waiting), len(self._drawing)

    def jobs(self) -> list[Job]:
        """All known jobs, the newest last."""
        with self._changed:
            return list(self._jobs.values())

    def _notify(self, job: Job) -> None:
        job.version += 1
        for listener in job.listeners:
            listener()

    def _cancel_abandoned(self) -> None:
        """Cancel jobs that nobody listens to or has asked for in a while."""
        oldest = time.monotonic() - self.limits.patience
        for job in [job for job, _ in (*self._waiting, *self._drawing)]:
            if not job.listeners and job.seen < oldest:
                self.end(job, "cancelled", f"nobody asked for it in {self.limits.patience:g} s")

    def _forget(self) -> None:
        over = [job for job in self._jobs.values() if job.is_over]
        for job in over[: max(0, len(over) - self.limits.kept)]:
            del self._jobs[job.id]
