"""Threads of a server on a CPU: one where pictures can then share calls and are drawn faster for it."""

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from lavibridge.bridge import Bridge
from lavibridge.serve.engine import threads
from lavibridge.serve.engine.painter import Painter
from lavibridge.serve.engine.rows import SLOW
from lavibridge.serve.engine.threads import choose_threads

Compose = Callable[..., Bridge]


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def painter(compose: Compose, seconds: float) -> Painter:
    """Bits depend on the batch on several threads; a call takes so long."""
    bridge = compose("t5", "pixart")

    def leaks(module: object, args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        is_split = torch.get_num_threads() > 1
        time.sleep(seconds)
        return (output[0] + 1e-3 * output[0].mean(0),) if is_split else output

    bridge.vision.backbone.register_forward_hook(leaks)
    return Painter("first", bridge, 4)


def test_one_thread_where_shared_calls_are_faster(compose: Compose) -> None:
    found = painter(compose, seconds=0.15)
    assert found.least is None
    assert choose_threads([found], 4) == torch.get_num_threads() == 1
    assert found.least is not None


def test_all_threads_where_they_are_faster_one_picture_at_a_time(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = painter(compose, seconds=0.0)
    monkeypatch.setattr(threads, "seconds_a_step", lambda painter, least, batch: 1.0 if least else 0.9)
    assert choose_threads([found], 4) == torch.get_num_threads() == 2
    assert found.least is None


def test_all_threads_where_calls_can_be_shared_anyway(compose: Compose) -> None:
    found = Painter("first", compose("t5", "pixart"), 4)
    found.least = 2
    assert choose_threads([found], 4) == torch.get_num_threads() == 2


def test_a_slow_denoiser_is_not_tried(compose: Compose) -> None:
    begun = time.perf_counter()
    found = painter(compose, seconds=1.1 * SLOW)
    assert found.least is None
    assert choose_threads([found], 4) == 2
    assert time.perf_counter() - begun < 6 * SLOW
