"""The worker: the one thread that generates images.

    each turn: the queue chooses images of one model and size -> one step of each -> finished images leave

Unfinished images keep their state between turns, so a short request never waits for the end of a long one.
"""

import json
import time
import traceback
from threading import Thread

import torch

from lavibridge.core.errors import LaviError
from lavibridge.core.log import console
from lavibridge.generation.image_files import encode_image, encode_png
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.serve.engine.image_generation import ImageGeneration, advance_generations
from lavibridge.serve.engine.job import Job, JobImage
from lavibridge.serve.engine.model_pool import ModelPool, PairUnavailable
from lavibridge.serve.engine.queue import Queue, QueuedImage
from lavibridge.world.prompt_parser import check_prompt

_TEXT_CHUNK = "lavibridge"
"""Key of the recipe in an image's metadata."""
_PREVIEW_EVERY = 0.4
"""Minimum seconds between two previews of an image."""
_PREVIEW_SHARE = 5.0
"""Minimum time between two previews, as a multiple of the time that a preview takes."""


class Worker:
    """Generates the images of a queue until the queue closes."""

    def __init__(self, queue: Queue, models: ModelPool, threads: int) -> None:
        self.queue, self.models, self.threads = queue, models, threads
        self.steps = 0
        """Number of calls of `advance_generations`."""
        self.picture_steps = 0
        """Number of steps, summed over the images of these calls."""
        self._in_progress: dict[JobImage, tuple[Job, ImageGeneration]] = {}
        self._previewed: dict[JobImage, float] = {}
        self._mark = time.monotonic()
        self._thread = Thread(target=self._run, name="lavi-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end of the thread, after `Queue.close`."""
        self._thread.join(seconds)

    @torch.inference_mode()
    def _run(self) -> None:
        torch.set_num_threads(self.threads)
        while places := self.queue.take():
            self._forget_ended()
            with self.models.turns.hold():
                self._take_turn(places)

    def _take_turn(self, places: list[QueuedImage]) -> None:
        """Start new images, and take one step of each."""
        start = time.monotonic()
        begun = [place for place in places if self._begin(*place)]
        for group in self._grouped(begun):
            self._step(group)
        if begun:
            pixels = sum(image.request.width * image.request.height for _, image in begun)
            self.queue.measured(time.monotonic() - start, pixels)

    def _forget_ended(self) -> None:
        """Drop the states of finished images, and of the images of jobs that are over."""
        for picture, (job, _) in list(self._in_progress.items()):
            if job.is_over or picture.file is not None:
                del self._in_progress[picture]
                self._previewed.pop(picture, None)
        if not self._in_progress:
            self._mark = time.monotonic()

    def _begin(self, job: Job, picture: JobImage) -> bool:
        """Start an image unless it is in progress; return False if that fails."""
        if picture in self._in_progress:
            return True
        try:
            model = self.models.get(picture.request.model)
            self._in_progress[picture] = job, ImageGeneration(picture.request, model)
            job.tokens_used, job.tokens_cut = model.count_tokens(picture.request.encoded_text)
        except Exception as error:
            self._fail([(job, picture)], error)
            return False
        return True

    def _grouped(self, places: list[QueuedImage]) -> list[list[QueuedImage]]:
        """Group the images of a turn by the number format of their denoiser's calls."""
        groups: dict[bool, list[QueuedImage]] = {}
        for job, picture in places:
            _, generation = self._in_progress[picture]
            groups.setdefault(generation.state.settings.autocast, []).append((job, picture))
        return list(groups.values())

    def _step(self, group: list[QueuedImage]) -> None:
        generations = [self._in_progress[picture][1] for _, picture in group]
        try:
            advance_generations(generations)
        except Exception as error:
            self._fail(group, error)
            return
        self.steps, self.picture_steps = self.steps + 1, self.picture_steps + len(group)
        for (job, picture), generation in zip(group, generations, strict=True):
            try:
                self.queue.stepped(job, picture, self._preview(job, picture, generation))
                if generation.is_finished:
                    self._finish(job, picture, generation)
            except Exception as error:
                self._fail([(job, picture)], error)

    def _preview(self, job: Job, picture: JobImage, generation: ImageGeneration) -> bytes | None:
        """Return a preview as a PNG, at intervals and only if the job has listeners."""
        if generation.is_finished or not job.wants_preview:
            return None
        start = time.monotonic()
        if start < self._previewed.get(picture, 0.0):
            return None
        png = encode_png(generation.preview())
        elapsed = time.monotonic() - start
        self._previewed[picture] = start + max(_PREVIEW_EVERY, _PREVIEW_SHARE * elapsed)
        return png

    def _finish(self, job: Job, picture: JobImage, generation: ImageGeneration) -> None:
        image = generation.picture()
        if generation.model.has_checker:
            picture.verdict = check_prompt(picture.request.weighted_prompt.text, image)
        picture.attention_maps = generation.attention_maps()
        metadata = {_TEXT_CHUNK: json.dumps(picture.request.record())} if job.embed_recipe else {}
        file = encode_image(image, job.format, job.compression, metadata)
        now = time.monotonic()
        self.queue.finished(job, picture, file, now - self._mark)
        self._mark = now

    def _fail(self, group: list[QueuedImage], error: Exception) -> None:
        """End jobs with an error: the client gets a LaviError's message, the console the traceback."""
        is_for_client = isinstance(error, LaviError)
        is_own_fault = is_for_client and not isinstance(error, NonfiniteImageError | PairUnavailable)
        if not is_own_fault:
            console.print("".join(traceback.format_exception(error)), soft_wrap=True)
        message = (
            str(error)
            if is_for_client
            else "the server failed to generate the image; its log has the traceback"
        )
        for job, _ in group:
            self.queue.end(job, "failed", message, is_own_fault)
