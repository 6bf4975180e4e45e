"""How many threads a server draws with on a CPU: all, or one where pictures can then share calls and it pays.

Several threads split a product by its rows, so that a row's bits depend on how many there are, and each
picture has to be drawn by itself (`rows.least_rows`). A small denoiser then draws more with one thread and
many pictures in a call; which of the two it is, is measured.
"""

import time
from collections.abc import Sequence

import torch

from lavibridge.core.device import set_threads
from lavibridge.serve.engine.painter import Painter
from lavibridge.serve.engine.rows import SLOW, least_rows, predict_rows, trial_rows

ROUNDS = 3


def choose_threads(painters: Sequence[Painter], batch: int) -> int:
    """The number of threads to draw with; where it is one, the painters are told how they now share calls."""
    threads = set_threads()
    asked = [each for each in painters if not each.bridge.connector.per_block]
    if threads == 1 or all(each.least is not None for each in asked):
        return threads
    now = [seconds_a_step(each, each.least, batch) for each in asked]
    if max(now) > SLOW:
        return threads
    torch.set_num_threads(1)
    found = [least_rows(each.bridge.vision, each.width, 2 * batch) for each in asked]
    if None not in found:
        then = [seconds_a_step(each, least, batch) for each, least in zip(asked, found, strict=True)]
        if sum(then) < sum(now):
            for each, least in zip(asked, found, strict=True):
                each.least = least
            return 1
    torch.set_num_threads(threads)
    return threads


@torch.inference_mode()
def seconds_a_step(painter: Painter, least: int | None, batch: int) -> float:
    """Time of a picture's step with guidance: the best of a few, of a whole batch where calls are shared."""
    vision, together = painter.bridge.vision, 1 if least is None else batch
    rows, best = trial_rows(vision, painter.width, 2 * together), float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        predict_rows(vision, rows, painter.width, least or 1)
        best = min(best, (time.perf_counter() - begun) / together)
        if best > SLOW:
            break
    return best
