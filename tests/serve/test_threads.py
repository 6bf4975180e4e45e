"""Threads of a server on a CPU: one where pictures can then share calls and are drawn faster for it."""

from collections.abc import Callable, Iterator

import pytest
import torch

from lavibridge.bridge import Bridge
from lavibridge.serve.engine import least_rows, thread_count
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.engine.thread_count import THREAD_TRIALS, choose_thread_count, step_seconds_with_threads

Compose = Callable[..., Bridge]


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def model(compose: Compose) -> ServedModel:
    """On several threads its bits depend on the batch, on one they do not."""
    bridge = compose("t5", "pixart")

    def leaks(module: object, args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (output[0] + 1e-3 * output[0].mean(0),) if torch.get_num_threads() > 1 else output

    bridge.vision.backbone.register_forward_hook(leaks)
    return ServedModel("first", bridge, 4)


@pytest.mark.parametrize(("together", "alone", "chosen"), [(0.8, 1.0, 1), (1.0, 0.8, 2)])
def test_one_thread_where_shared_calls_are_faster(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, together: float, alone: float, chosen: int
) -> None:
    found = model(compose)
    assert found.least_rows is None
    monkeypatch.setattr(
        thread_count, "step_seconds_with_threads", lambda model, least, batch: together if least else alone
    )
    assert choose_thread_count([found], 4) == torch.get_num_threads() == chosen
    assert (found.least_rows is not None) == (chosen == 1)


def test_time_is_measured_for_a_picture(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        thread_count, "LEAST_ROWS_TIME_LIMIT", float("inf")
    )  # a busy machine would end it early
    found = ServedModel("first", compose("t5", "pixart"), 4)
    calls: list[int] = []
    found.bridge.vision.backbone.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    assert step_seconds_with_threads(found, 2, 4) > 0
    assert step_seconds_with_threads(found, None, 4) > 0
    assert calls == [8] * THREAD_TRIALS + [2] * THREAD_TRIALS


def test_all_threads_where_calls_can_be_shared_anyway(compose: Compose) -> None:
    found = ServedModel("first", compose("t5", "pixart"), 4)
    found.least_rows = 2
    assert choose_thread_count([found], 4) == torch.get_num_threads() == 2


def test_a_slow_denoiser_is_not_tried(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_rows, "LEAST_ROWS_TIME_LIMIT", 0.0)
    monkeypatch.setattr(thread_count, "LEAST_ROWS_TIME_LIMIT", 0.0)
    bridge, calls = compose("t5", "pixart"), list[int]()
    bridge.vision.backbone.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    found = ServedModel("first", bridge, 4)
    assert found.least_rows is None
    assert choose_thread_count([found], 4) == 2
    assert calls == [1, 2]  # a row, and a picture with guidance
