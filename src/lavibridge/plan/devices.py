"""Device speeds: a table from data sheets, and measurements of this machine.

    time of a pass = max(sum over operations of max(flops / rate, bytes / bandwidth), operations * launch)

Rates are dense, without sparsity. Programs reach only a part of a data sheet's rates: `UTILISATION` is an
assumption, not yet checked on a GPU. Measured rates need no such factor.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from lavibridge.core.device import pick_device, set_threads
from lavibridge.core.errors import RecipeError, did_you_mean

UTILISATION = {"arithmetic": 0.5, "bandwidth": 0.8}
"""Assumed share of the data sheet's rates."""
LAUNCH = 8e-6
"""Assumed seconds that Python and PyTorch need to launch one kernel of an uncompiled model."""
GIB = 2**30
PROGRAM = 6 * GIB // 10
"""Bytes that Python and its libraries hold in a training process on a CPU, before any weights."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The speed and memory of a device."""

    name: str
    memory: int
    """Bytes."""
    half: float
    """Attainable operations per second in bfloat16."""
    single: float
    """Attainable operations per second in float32."""
    bandwidth: float
    """Attainable bytes per second of memory bandwidth."""
    launch: float
    """Minimum seconds per operation."""
    type: str = "cuda"
    program: int = 0
    """Bytes of the device's memory that Python and its libraries take. A GPU's context does not count,
    because a plan leaves a part of the memory free."""
    is_measured: bool = False


def _card(name: str, gib: int, half: float, single: float, bandwidth: float) -> Device:
    """Describe a GPU by its data sheet: memory in GiB, rates in TFLOP/s, bandwidth in GB/s."""
    return Device(
        name=name,
        memory=gib * GIB,
        half=half * 1e12 * UTILISATION["arithmetic"],
        single=single * 1e12 * UTILISATION["arithmetic"],
        bandwidth=bandwidth * 1e9 * UTILISATION["bandwidth"],
        launch=LAUNCH,
    )


GPUS = {
    card.name: card
    for card in (
        _card("h200", 141, 989.0, 67.0, 4800.0),
        _card("h100", 80, 989.0, 67.0, 3350.0),
        _card("a100-80gb", 80, 312.0, 19.5, 2039.0),
        _card("a100", 40, 312.0, 19.5, 1555.0),
        _card("l40s", 48, 362.0, 91.6, 864.0),
        _card("a10g", 24, 70.0, 31.5, 600.0),
        _card("l4", 24, 121.0, 30.3, 300.0),
        _card("rtx4090", 24, 165.0, 82.6, 1008.0),
        _card("rtx3090", 24, 71.0, 35.6, 936.0),
    )
}
"""NVIDIA's data sheets and architecture papers; half is bfloat16 with float32 sums."""
HERE = "here"


def find_device(name: str) -> Device:
    """Return the device of this name; `here` measures this machine, which takes a few seconds.

    Raises RecipeError for an unknown name.
    """
    if name == HERE:
        return measure_device()
    if name not in GPUS:
        known = (HERE, *GPUS)
        raise RecipeError(
            f"--device: unknown device '{name}'{did_you_mean(name, known)} (known: {', '.join(known)}); for "
            "another device, choose the most similar one and set its memory with --gb"
        )
    return GPUS[name]


def measure_device() -> Device:
    """Measure this machine: products of 1024 x 1024 matrices, sums of 64 MiB, sums of one number."""
    set_threads()
    device = pick_device("auto")
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(1024, 1024, device=device).to(dtype)
        rates[dtype] = 2 * 1024**3 / _seconds(lambda a=a: a @ a)  # type: ignore[misc]
    large, small = torch.zeros(2**24, device=device), torch.zeros(1, device=device)
    sums = torch.empty_like(large)
    return Device(
        name=HERE,
        memory=_memory(device),
        half=rates[torch.bfloat16],
        single=rates[torch.float32],
        bandwidth=3 * 4 * large.numel() / _seconds(lambda: torch.add(large, large, out=sums)),
        launch=_seconds(lambda: [small + small for _ in range(1000)]) / 1000,
        type=device.type,
        program=PROGRAM if device.type == "cpu" else 0,
        is_measured=True,
    )


def _seconds(work: Callable[[], object]) -> float:
    """Repeat the work for at least a fifth of a second, and return the shortest time."""
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < 0.2 or best == float("inf"):
        start = time.perf_counter()
        work()
        _wait()
        best = min(best, time.perf_counter() - start)
    return best


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
