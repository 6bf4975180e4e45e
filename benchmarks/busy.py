"""Measures encoding, generation, training and serving on an idle and on a busy machine.

python benchmarks/busy.py            all four, written to benchmarks/results; run nothing else meanwhile

Each run is a fresh process of one of three ways, in turns:

    one thread    OMP_NUM_THREADS=1, the baseline, on the idle machine only
    default       all cores, the spin count of the command (core/thread_spinning.py), idle and busy
    library       all cores, the default spin count of GNU OpenMP, on the idle machine only

Targets: on the idle machine the median of the default is at most 5 % slower than the library. On the busy
machine its slowest run takes at most three times as long as one thread on the idle machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RUNS = 5
ROUNDS = {"reading": 3, "drawing": 3, "serving": 3, "training": 1}
"""Rounds a process, of which it takes the median; a round of training is long and has its own warm-up."""
CAPTIONS, BATCH = 256, 32
PICTURES, STEPS, TRAINED = 4, 10, 12
WAYS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "default": {},
    "library": {"GOMP_SPINCOUNT": "300000"},
}


def reading() -> Callable[[], object]:
    """256 captions of the world, read by mini-llama."""
    import torch

    from lavibridge.bridge.choices import model_of_choice
    from lavibridge.world.captions import sample_captioned_scene

    language: Any = model_of_choice("language", "mini-llama").eval()
    captions = [sample_captioned_scene(9, index).caption for index in range(CAPTIONS)]

    @torch.no_grad()
    def read() -> None:
        for start in range(0, CAPTIONS, BATCH):
            language.encode(captions[start : start + BATCH])

    return read


def drawing() -> Callable[[], object]:
    """Four pictures by mini-sd, ten steps with guidance."""
    from lavibridge import BridgePipeline

    pipe = BridgePipeline.native("mini-sd", device="cpu")
    prompt = "a red circle to the left of a blue square"
    options: dict[str, Any] = {
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
        "num_images_per_prompt": PICTURES,
    }
    return lambda: pipe(prompt, seed=0, **options)


def training() -> Callable[[], object]:
    """Twelve steps of the quickstart's recipe without its alignment, its start included."""
    from lavibridge.recipes.recipe import load_recipe
    from lavibridge.training.train import train

    recipe = load_recipe(
        "quickstart", ["training.align=null", f"training.steps={TRAINED}", "training.max_minutes=null"]
    )

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Path(folder) / "run")

    return run


def serving() -> Callable[[], object]:
    """Four pictures of mini-sd in the server's batch, on as many threads as the server chooses."""
    import torch

    from lavibridge import BridgePipeline
    from lavibridge.serve.engine.image_generation import ImageGeneration, advance_generations
    from lavibridge.serve.engine.request import Request
    from lavibridge.serve.engine.served_model import ServedModel
    from lavibridge.serve.engine.thread_count import choose_thread_count

    bridge = BridgePipeline.native("mini-sd", device="cpu").bridge
    model = ServedModel("mini-sd", bridge, PICTURES)
    choose_thread_count([model], PICTURES)
    options: dict[str, Any] = {
        "model": "mini-sd",
        "prompt": "a red circle to the left of a blue square",
        "negative_prompt": "",
        "num_inference_steps": STEPS,
        "guidance_scale": 4.0,
        "quality": "exact",
        "width": 64,
        "height": 64,
    }

    @torch.inference_mode()
    def serve() -> None:
        drawings = [ImageGeneration(Request(seed=seed, **options), model) for seed in range(PICTURES)]
        for _ in range(STEPS):
            advance_generations(drawings)

    return serve


WORKS = {"reading": reading, "drawing": drawing, "training": training, "serving": serving}


def measure(work: str, busy: bool) -> dict[str, float]:
    """Seconds of one round on the machine as it is and, if ``busy``, also beside competitors."""
    from lavibridge.core.thread_spinning import set_spin_count

    set_spin_count()
    from lavibridge.core.device import set_threads

    set_threads()
    run = WORKS[work]()
    if ROUNDS[work] > 1:
        run()
    times = {"idle": seconds(run, ROUNDS[work])}
    if busy:
        with competitors():
            times["busy"] = seconds(run, ROUNDS[work])
    return times


def seconds(run: Callable[[], object], rounds: int) -> float:
    """The median of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def competitors() -> Iterator[None]:
    """A process that never rests for every core."""
    program = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(program) for _ in os.sched_getaffinity(0)]
    time.sleep(0.2)
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def in_fresh_process(work: str, way: str) -> dict[str, float]:
    """`measure` in a process of its own, under one way's environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "one", work, *(["busy"] if way == "default" else [])]
    done = subprocess.run(command, env=clean | WAYS[way], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def result(work: str) -> dict[str, Any]:
    """All ways of one work in turns, and the figures that the bars are about."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(RUNS):
        for way, runs in found.items():
            runs.append(in_fresh_process(work, way))
    idle = {way: statistics.median(run["idle"] for run in runs) for way, runs in found.items()}
    busy = [run["busy"] / idle["one thread"] for run in found["default"]]
    return {
        "seconds": found,
        "idle, default against library": idle["default"] / idle["library"],
        "busy, default against one idle thread": {"worst": max(busy), "median": statistics.median(busy)},
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure(sys.argv[2], busy="busy" in sys.argv[3:])))
    else:
        from record import record

        works = sys.argv[1:] or list(WORKS)
        record("busy", {"runs": RUNS, **{work: result(work) for work in works}})
