"""Chooses the number of threads of a server on a CPU: all, or one if shared calls then make it faster.

Several threads split a matrix product by rows, so a row's bits depend on the number of rows and each image
needs calls of its own (`least_rows.py`). With a small denoiser, one thread and shared calls can generate more
images; the server measures both.
"""

import time
from collections.abc import Sequence

import torch

from lavibridge.core.device import set_threads
from lavibridge.generation.denoise import SharedDenoiserCalls, predict_denoiser_rows
from lavibridge.serve.engine.least_rows import LEAST_ROWS_TIME_LIMIT, find_least_rows, least_rows_trial
from lavibridge.serve.engine.served_model import ServedModel

THREAD_TRIALS = 3


def choose_thread_count(models: Sequence[ServedModel], batch: int) -> int:
    """Return the number of threads; if it is one, set the models' ``least_rows`` accordingly."""
    threads = set_threads()
    sharing = [each for each in models if not each.bridge.connector.per_block]
    if threads == 1 or all(each.least_rows is not None for each in sharing):
        return threads
    now = [step_seconds_with_threads(each, each.least_rows, batch) for each in sharing]
    if max(now) > LEAST_ROWS_TIME_LIMIT:
        return threads
    torch.set_num_threads(1)
    found = [find_least_rows(each.bridge.vision, each.width, 2 * batch) for each in sharing]
    if None not in found:
        then = [
            step_seconds_with_threads(each, least, batch) for each, least in zip(sharing, found, strict=True)
        ]
        if sum(then) < sum(now):
            for each, least in zip(sharing, found, strict=True):
                each.least_rows = least
            return 1
    torch.set_num_threads(threads)
    return threads


@torch.inference_mode()
def step_seconds_with_threads(model: ServedModel, least: int | None, batch: int) -> float:
    """Measure the seconds per image of a guided step, the best of a few trials with a whole batch."""
    vision, together = model.bridge.vision, 1 if least is None else batch
    layout = SharedDenoiserCalls(width=model.width, least_rows=least or 1)
    rows, best = least_rows_trial(vision, model.width, 2 * together), float("inf")
    for _ in range(THREAD_TRIALS):
        begun = time.perf_counter()
        predict_denoiser_rows(vision, rows, layout)
        best = min(best, (time.perf_counter() - begun) / together)
        if best > LEAST_ROWS_TIME_LIMIT:
            break
    return best
