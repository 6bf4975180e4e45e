"""Waits for jobs without blocking a thread, and notices when a client disconnects."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request

from lavibridge.serve.engine.job import Job
from lavibridge.serve.engine.queue import Queue

_STILL_HERE = 15.0
"""Seconds of silence after which to send a comment, which reveals a broken connection."""


@asynccontextmanager
async def watch_listening(queue: Queue, job: Job) -> AsyncIterator[asyncio.Event]:
    """Yield an event that every change of the job sets; the last listener to leave cancels the job."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        loop.call_soon_threadsafe(changed.set)

    queue.listen(job, wake)
    try:
        yield changed
    finally:
        queue.leave(job, wake)


async def watch_until_over(queue: Queue, job: Job, request: Request) -> None:
    """Wait until a job is over or its client has disconnected."""
    async with watch_listening(queue, job) as changed:
        gone = asyncio.create_task(_gone(request))
        try:
            while not job.is_over and not gone.done():
                waiting = asyncio.create_task(changed.wait())
                await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                changed.clear()
        finally:
            gone.cancel()


async def watch_events(queue: Queue, job: Job) -> AsyncIterator[str]:
    """Yield a job's state now and after each change, as server-sent events `event: job`.

    A slow client gets the latest state, never a backlog. Each image and preview is sent once.
    """
    sent: dict[int, bytes] = {}
    async with watch_listening(queue, job) as changed:
        while True:
            changed.clear()
            is_over = job.is_over
            yield f"event: job\ndata: {json.dumps(_with_pictures(queue, job, sent))}\n\n"
            if is_over:
                return
            while not changed.is_set():
                try:
                    await asyncio.wait_for(changed.wait(), _STILL_HERE)
                except TimeoutError:
                    yield ": still here\n\n"


def _with_pictures(queue: Queue, job: Job, sent: dict[int, bytes]) -> dict[str, Any]:
    described = queue.describe(job)
    for number, picture in enumerate(job.pictures):
        found = picture.file or picture.preview
        if found is not None and sent.get(number) is not found:
            sent[number] = found
            key = "b64_json" if picture.file is not None else "preview"
            described["pictures"][number][key] = base64.b64encode(found).decode()
    return described


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
