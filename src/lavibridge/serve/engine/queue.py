"""The queue: accepts jobs up to a limit, hands their images to the worker, and notifies listeners.

It is thread-safe, and the only place where the event loop and the worker's thread meet.
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
"""Assumed seconds per image before the first one is finished."""
QueuedImage = tuple[Job, JobImage]


class QueueFull(LaviError):
    """The queue is full; clients may retry after ``seconds``."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the queue is full: try again in {seconds} s")
        self.seconds = seconds


class ServerClosing(LaviError):
    """The server is stopping."""


class Queue:
    """Jobs that wait, jobs in progress, and the latest finished jobs."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.is_closing = False
        self.drawn = 0
        """Images finished since the start."""
        self.pace = _FIRST_GUESS
        """Running mean of the seconds between finished images while there is work."""
        self._changed = Condition(RLock())  # reentrant, as some methods call others
        self._waiting: deque[QueuedImage] = deque()
        self._drawing: list[QueuedImage] = []
        self._jobs: dict[str, Job] = {}

    def submit(self, job: Job) -> Job:
        """Accept a whole job. Raises QueueFull or ServerClosing."""
        with self._changed:
            self.require_place(len(job.pictures))
            self._jobs[job.id] = job
            self._waiting.extend((job, picture) for picture in job.pictures)
            self._forget()
            self._changed.notify_all()
        return job

    def require_place(self, pictures: int) -> None:
        """Raise QueueFull or ServerClosing if a job of so many images would be refused now."""
        with self._changed:
            if self.is_closing:
                raise ServerClosing(
                    "the server is stopping and accepts no more jobs: try again when it is back"
                )
            load = len(self._waiting) + len(self._drawing)
            if load + pictures > self.limits.queue:
                raise QueueFull(min(600, max(1, math.ceil(load * self.pace))))

    def find(self, name: str) -> Job | None:
        """Return the job with an id, or None. Each call keeps the job alive."""
        with self._changed:
            job = self._jobs.get(name)
            if job is not None:
                job.seen = time.monotonic()
            return job

    def cancel(self, job: Job) -> None:
        """Cancel a job, which frees its place within a step."""
        self.end(job, "cancelled", "cancelled by the client")

    def forget(self, job: Job) -> None:
        """Remove a finished job with its images."""
        with self._changed:
            self._jobs.pop(job.id, None)

    def end(self, job: Job, state: JobStatus, error: str | None = None, is_own_fault: bool = False) -> None:
        """End a job, unless it is over."""
        with self._changed:
            if not job.is_over:
                job.state, job.error, job.is_own_fault = state, error, is_own_fault
                self._waiting = deque(place for place in self._waiting if place[0] is not job)
                self._drawing = [place for place in self._drawing if place[0] is not job]
                self._notify(job)
                self._changed.notify_all()

    def take(self) -> list[QueuedImage]:
        """Wait for work and return the images to generate now; an empty list tells the worker to stop.

        Images come in the order of their requests, up to the batch size.
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
        """Record, for the worker, that an image has taken one more step."""
        with self._changed:
            picture.step += 1
            picture.preview = preview or picture.preview
            self._notify(job)

    def finished(self, job: Job, picture: JobImage, file: bytes, seconds: float) -> None:
        """Record, for the worker, that an image is done, ``seconds`` of work after the previous one."""
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
        """Finish the images in progress; reject waiting and new jobs."""
        with self._changed:
            self.is_closing = True
            begun = {id(job) for job, _ in self._drawing}
            for job in {id(job): job for job, _ in self._waiting}.values():
                if id(job) not in begun:
                    self.end(job, "rejected", "the server is stopping: try again when it is back")
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
        """Return the numbers of waiting images and of images in progress."""
        with self._changed:
            return len(self._waiting), len(self._drawing)

    def jobs(self) -> list[Job]:
        """Return all known jobs, the newest last."""
        with self._changed:
            return list(self._jobs.values())

    def _notify(self, job: Job) -> None:
        job.version += 1
        for listener in job.listeners:
            listener()

    def _cancel_abandoned(self) -> None:
        """Cancel jobs without listeners that no client has asked about recently."""
        oldest = time.monotonic() - self.limits.patience
        for job in [job for job, _ in (*self._waiting, *self._drawing)]:
            if not job.listeners and job.seen < oldest:
                self.end(job, "cancelled", f"no client asked about it for {self.limits.patience:g} s")

    def _forget(self) -> None:
        over = [job for job in self._jobs.values() if job.is_over]
        for job in over[: max(0, len(over) - self.limits.kept)]:
            del self._jobs[job.id]
