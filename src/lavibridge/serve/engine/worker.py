"""The worker: the one thread that draws on a device.

    each turn: who waits comes in -> one step of the canvases of one painter and shape -> who is done goes out

Pictures join and leave between steps, so that a short request never waits for a long one to end.
"""

import json
import time
import traceback
from collections.abc import Mapping
from threading import Thread

import torch

from lavibridge.core.errors import LaviError
from lavibridge.core.log import console
from lavibridge.generation.finite import NotDrawnError
from lavibridge.generation.sheet import encode_picture, encode_png
from lavibridge.serve.engine.canvas import Canvas, advance
from lavibridge.serve.engine.desk import Desk, Place
from lavibridge.serve.engine.job import Job, Picture
from lavibridge.serve.engine.painter import Painter
from lavibridge.world.prompt_parser import check_prompt

TEXT_CHUNK = "lavibridge"
"""Name of the text that holds a picture's recipe."""
PREVIEW_EVERY = 0.4
"""Least seconds between two previews of a picture."""
PREVIEW_SHARE = 5.0
"""Times that a preview's own time has to pass before the next."""


class Worker:
    """Draws what waits at a desk, until the desk closes."""

    def __init__(self, desk: Desk, painters: Mapping[str, Painter], threads: int) -> None:
        self.desk, self.painters, self.threads = desk, painters, threads
        self.steps = 0
        """Calls of `advance` so far."""
        self.rows = 0
        """Pictures that these calls brought a step further, all together."""
        self._canvases: dict[Picture, Canvas] = {}
        self._previewed: dict[Picture, float] = {}
        self._turn = 0
        self._mark = time.monotonic()
        self._thread = Thread(target=self._run, name="lavi-worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait for the end, after `Desk.close`."""
        self._thread.join(seconds)

    @torch.inference_mode()
    def _run(self) -> None:
        torch.set_num_threads(self.threads)
        while places := self.desk.take():
            self._forget_others(places)
            ready = [place for place in places if self._is_begun(*place)]
            groups = self._grouped(ready)
            if not groups:
                continue
            self._turn += 1
            self._step(groups[self._turn % len(groups)])

    def _forget_others(self, places: list[Place]) -> None:
        """Drop the canvases of jobs that were cancelled."""
        wanted = {picture for _, picture in places}
        for picture in self._canvases.keys() - wanted:
            del self._canvases[picture]
            self._previewed.pop(picture, None)
        if not self._canvases:
            self._mark = time.monotonic()

    def _is_begun(self, job: Job, picture: Picture) -> bool:
        """Whether a picture has its canvas; it is made where it has none."""
        if picture in self._canvases:
            return True
        try:
            painter = self.painters[picture.wish.model]
            self._canvases[picture] = Canvas(picture.wish, painter)
            job.tokens_used, job.tokens_cut = painter.count_tokens(picture.wish.read_prompt)
        except Exception as error:
            self._fail([(job, picture)], error)
            return False
        return True

    def _grouped(self, places: list[Place]) -> list[list[Place]]:
        """What can be drawn together."""
        groups: dict[object, list[Place]] = {}
        for job, picture in places:
            alike = (picture.wish.model, picture.wish.shape, self._canvases[picture].is_rounded)
            groups.setdefault(alike, []).append((job, picture))
        return list(groups.values())

    def _step(self, group: list[Place]) -> None:
        canvases = [self._canvases[picture] for _, picture in group]
        try:
            advance(canvases)
        except Exception as error:
            self._fail(group, error)
            return
        self.steps, self.rows = self.steps + 1, self.rows + len(group)
        for (job, picture), canvas in zip(group, canvases, strict=True):
            try:
                self.desk.stepped(job, picture, self._preview(job, picture, canvas))
                if canvas.is_finished:
                    self._finish(job, picture, canvas)
            except Exception as error:
                self._fail([(job, picture)], error)

    def _preview(self, job: Job, picture: Picture, canvas: Canvas) -> bytes | None:
        """What a picture looks like so far, now and then, where somebody watches."""
        if canvas.is_finished or not job.waits_for_preview:
            return None
        start = time.monotonic()
        if start < self._previewed.get(picture, 0.0):
            return None
        png = encode_png(canvas.preview())
        spent = time.monotonic() - start
        self._previewed[picture] = start + max(PREVIEW_EVERY, PREVIEW_SHARE * spent)
        return png

    def _finish(self, job: Job, picture: Picture, canvas: Canvas) -> None:
        image = canvas.picture()
        if canvas.painter.is_of_the_world:
            picture.verdict = check_prompt(picture.wish.read_prompt.text, image)
        picture.why = canvas.explain()
        note = {TEXT_CHUNK: json.dumps(picture.wish.record())} if job.is_signed else {}
        file = encode_picture(image, job.format, job.compression, note)
        now = time.monotonic()
        self.desk.finished(job, picture, file, now - self._mark)
        self._mark = now

    def _fail(self, group: list[Place], error: Exception) -> None:
        """End jobs with an error: the client is told only what is meant for it, the console everything."""
        is_said = isinstance(error, LaviError)
        is_own_fault = is_said and not isinstance(error, NotDrawnError)
        if not is_own_fault:
            console.print("".join(traceback.format_exception(error)), soft_wrap=True)
        told = str(error) if is_said else "the picture could not be drawn; the server's log says why"
        for job, _ in group:
            self.desk.end(job, "failed", told, is_own_fault)
