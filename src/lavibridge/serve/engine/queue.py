"""The queue: accepts jobs up to a limit, hands their images to the worker, and notifies listeners.

    unfinished jobs, in turn: A B C D --images of one step--> A1 B1 C1 A2 --> C D A B

Jobs share the batch by round robin: in each step every job gets a place before any job gets a second one, and
jobs that had a place go to the end of the line. A short job thus waits for steps, not for long jobs to end.
The queue is thread-safe, and the only place where the event loop and the worker's thread meet.

Kleinrock 1967 (J. ACM 14, 2), "Time-shared systems: a theoretical treatment".
"""

import math
import time
from collections.abc import Callable
from itertools import chain, islice, zip_longest
from threading import Condition, RLock
from typing import Any

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
        self._unfinished: list[Job] = []  # in the order of their turns
        self._jobs: dict[str, Job] = {}
        self._seconds_per_pixel_step: float | None = None

    def submit(self, job: Job) -> Job:
        """Accept a whole job. Raises QueueFull or ServerClosing."""
        with self._changed:
            self.require_place(len(job.pictures))
            self._jobs[job.id] = job
            self._unfinished.append(job)
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
            load = sum(self.counts())
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
                self._unfinished.remove(job)
                self._notify(job)
                self._changed.notify_all()

    def take(self) -> list[QueuedImage]:
        """Wait for work and return the images of the next step; an empty list tells the worker to stop.

        They are of one model and size, and at most as many as a batch holds.
        """
        with self._changed:
            while True:
                self._cancel_abandoned()
                if self._unfinished:
                    return self._next_batch()
                if self.is_closing:
                    return []
                self._changed.wait()

    def _next_batch(self) -> list[QueuedImage]:
        """Return the images whose turn it is, and move their jobs to the end of the line."""
        by_arrival = [job for job in self._jobs.values() if not job.is_over]
        models = list(dict.fromkeys(job.batch_key[0] for job in by_arrival))[: self.limits.pairs]
        first = next(job for job in self._unfinished if job.batch_key[0] in models)
        jobs = [job for job in self._unfinished if job.batch_key == first.batch_key]
        rounds = zip_longest(*([(job, image) for image in job.unfinished] for job in jobs))
        images = (place for place in chain.from_iterable(rounds) if place is not None)
        batch = list(islice(images, self.limits.batch_size))
        served = {id(job) for job, _ in batch}
        self._unfinished.sort(key=lambda job: id(job) in served)  # stable: the others keep their order
        for job, image in batch:
            image.has_begun = True
            if job.state == "waiting":
                job.state = "drawing"
                self._notify(job)
        return batch

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
            self.drawn += 1
            self.pace += 0.2 * (seconds - self.pace)
            if not job.unfinished:
                self.end(job, "done")
            self._notify(job)

    def measured(self, seconds: float, pixel_steps: int) -> None:
        """Record, for the worker, how long so many steps took, times their pixels."""
        with self._changed:
            found, known = seconds / pixel_steps, self._seconds_per_pixel_step
            self._seconds_per_pixel_step = found if known is None else known + 0.2 * (found - known)

    def expected_seconds(self, job: Job) -> int | None:
        """Return about how long a job will take, or None if it is over or no step has been measured yet.

        Under round robin, no job delays another by more than that other's own work.
        """
        with self._changed:
            if job.is_over or self._seconds_per_pixel_step is None:
                return None
            own = job.pixel_steps_left
            work = sum(min(own, each.pixel_steps_left) for each in self._unfinished)
            return math.ceil(work * self._seconds_per_pixel_step)

    def describe(self, job: Job) -> dict[str, Any]:
        """Return a job's state and expected time as JSON, without the images."""
        return {**job.describe(), "expected_seconds": self.expected_seconds(job)}

    def close(self) -> None:
        """Finish the jobs in progress that came first, as many as one batch holds; reject all others."""
        with self._changed:
            self.is_closing = True
            places = self.limits.batch_size
            for job in [job for job in self._jobs.values() if not job.is_over]:
                is_kept = job.state == "drawing" and places > 0
                places -= len(job.unfinished) if is_kept else 0
                if not is_kept:
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
            images = [image for job in self._unfinished for image in job.unfinished]
            begun = sum(image.has_begun for image in images)
            return len(images) - begun, begun

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
        for job in list(self._unfinished):
            if not job.listeners and job.seen < oldest:
                self.end(job, "cancelled", f"no client asked about it for {self.limits.patience:g} s")

    def _forget(self) -> None:
        over = [job for job in self._jobs.values() if job.is_over]
        for job in over[: max(0, len(over) - self.limits.kept)]:
            del self._jobs[job.id]
