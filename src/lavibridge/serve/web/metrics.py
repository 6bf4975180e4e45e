"""Metrics of the server in the text format of Prometheus."""

import mmap
from collections.abc import Iterator
from pathlib import Path

from lavibridge.serve.engine.queue import Queue
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.web.guard import Guard

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_exposition(queue: Queue, worker: Worker, guard: Guard) -> str:
    """Format all metrics as text."""
    return "\n".join([*_lines(queue, worker, guard), ""])


def _lines(queue: Queue, worker: Worker, guard: Guard) -> Iterator[str]:
    waiting, drawing = queue.counts()
    yield from _one("lavi_pictures_waiting", "gauge", "Images that wait in the queue.", waiting)
    yield from _one("lavi_pictures_drawing", "gauge", "Images in progress.", drawing)
    yield from _one(
        "lavi_queue_limit", "gauge", "Maximum images that wait or are in progress.", queue.limits.queue
    )
    yield from _one("lavi_pictures_total", "counter", "Images finished.", queue.drawn)
    yield from _one("lavi_steps_total", "counter", "Steps, each for one or more images.", worker.steps)
    yield from _one("lavi_picture_steps_total", "counter", "Steps, summed over images.", worker.picture_steps)
    yield from _one(
        "lavi_seconds_per_picture", "gauge", "Running mean while there is work.", round(queue.pace, 4)
    )
    memory = _memory()
    if memory is not None:
        yield from _one("process_resident_memory_bytes", "gauge", "Memory in use.", memory)
    yield "# HELP lavi_http_requests_total Responses by method, route and status."
    yield "# TYPE lavi_http_requests_total counter"
    for (method, route, status), count in sorted(guard.answered.items()):
        yield f'lavi_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {count}'


def _one(name: str, kind: str, help: str, value: int | float) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"
    yield f"{name} {value}"


def _memory() -> int | None:
    """Return the resident memory in bytes; None if the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * mmap.PAGESIZE
    except OSError:
        return None
