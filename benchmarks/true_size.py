"""Peak memory at published sizes against `lavi plan`; on a GPU also images a second.

    python benchmarks/true_size.py            T5-Large into Stable Diffusion 1.4 at 512 x 512, then the GPU
    python benchmarks/true_size.py --sdxl     T5-Large into SDXL at 1024 x 1024 as well
    python benchmarks/true_size.py --small    small widths, to try the script

The CPU part makes folders with random weights in the hub's layout, then draws with all weights in memory and
with the denoiser's in files, trains, and trains with a teacher, each in a process of its own, at batch 1 in
float32. `peak` is the most that the process held in
memory (VmHWM of Linux); `anonymous` leaves out the pages of weight files that are mapped, which the system
takes back where it needs them. Without a GPU the script says so and ends after the CPU part.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

import torch
from record import record
from spread import fresh
from true_folders import sd_folder, sdxl_folder, t5_folder

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.device import set_threads
from lavibridge.core.placement import Placement
from lavibridge.plan.devices import GIB, find_device
from lavibridge.plan.plan import PlanOptions, make_plan
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.training.train import train

SCENES, STEPS = 4, 2
PROMPT = "a red circle to the left of a blue square"
TEACHER = {"teacher": {"guidance": 2.0}}


def recipe(language: str, vision: str, training: Mapping[str, Any]) -> Recipe:
    """The pair as it was published, at batch 1, on scenes of the miniature world at the model's own size."""
    return make_recipe(
        {
            "language": {"source": language},
            "vision": {"source": vision},
            "connector": {"kind": "lavi"},
            "lora": {"language": {"rank": 32}, "vision": {"rank": 32}},
            "data": {"kind": "world", "scenes": SCENES},
            "training": {
                "steps": STEPS,
                "batch": 1,
                "preview_every": 0,
                "checkpoint_every": 0,
                "lr": {"language_lora": 1e-5, "connector": 1e-5, "vision_lora": 1e-5},
                **training,
            },
        }
    )


def planned(language: str, vision: str, training: Mapping[str, Any]) -> dict[str, float]:
    """What `lavi plan` says of a training, and of drawing, in GiB."""
    found = make_plan(recipe(language, vision, training), find_device("here"), PlanOptions(pictures=SCENES))
    return {
        "train": found.memory_total / GIB,
        "draw": found.drawing / GIB,
        "draw, offloaded": found.drawing_offloaded / GIB,
        "weights": found.memory.weights / GIB,
    }


def trained(language: str, vision: str, training: Mapping[str, Any]) -> dict[str, float]:
    """Train two steps."""
    set_threads()
    with tempfile.TemporaryDirectory() as folder, watched() as found:
        train(recipe(language, vision, training), Path(folder) / "run")
    return found


def drawn(language: str, vision: str, is_offloaded: bool = False) -> dict[str, float]:
    """Draw one guided picture with an untrained bridge, LoRA merged, in two steps."""
    set_threads()
    with tempfile.TemporaryDirectory() as folder, watched() as found:
        bridge = Bridge.compose(language, vision).merge().eval()
        if is_offloaded:
            bridge.vision.finalize_weights(Placement(device=bridge.device, offload=Path(folder)))
        BridgePipeline(bridge)(PROMPT, num_inference_steps=STEPS, seed=0)
    return found


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Fill a dictionary with the process's peaks in GiB, and the seconds that the work took."""
    found: dict[str, float] = {}
    ended, most = Event(), [0]

    def sample() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], status("RssAnon"))

    sampler, begun = Thread(target=sample, daemon=True), perf_counter()
    sampler.start()
    yield found
    ended.set()
    sampler.join()
    found |= {
        "peak": status("VmHWM") / GIB,
        "anonymous": most[0] / GIB,
        "seconds": perf_counter() - begun,
    }


def status(name: str) -> int:
    """Bytes of an entry of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def against_plan(language: Path, vision: Path) -> dict[str, Any]:
    """Every work of a pair, measured in a process of its own and planned in another."""
    pair = (str(language), str(vision))
    plans = {name: fresh(planned, *pair, settings) for name, settings in (("plain", {}), ("taught", TEACHER))}
    works: dict[str, tuple[Callable[..., Any], tuple[Any, ...], float]] = {
        "draw": (drawn, (), plans["plain"]["draw"]),
        "draw, offloaded": (drawn, (True,), plans["plain"]["draw, offloaded"]),
        "train": (trained, ({},), plans["plain"]["train"]),
        "train with a teacher": (trained, (TEACHER,), plans["taught"]["train"]),
    }
    rows: dict[str, Any] = {"weights": plans["plain"]["weights"]}
    for name, (work, given, plan) in works.items():
        found = fresh(work, *pair, *given)
        rows[name] = {**found, "plan": plan, "peak over plan": found["peak"] / plan}
        print(name, rows[name], file=sys.stderr, flush=True)  # the record comes at the end
    return rows


def on_cpu(arguments: list[str]) -> dict[str, Any]:
    """The pairs that were asked for."""
    is_small = "--small" in arguments
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        root = Path(name)
        language = fresh(t5_folder, root, is_small)
        found = {"t5-large_sd14": against_plan(language, fresh(sd_folder, root, is_small))}
        if "--sdxl" in arguments:
            found["t5-large_sdxl"] = against_plan(language, fresh(sdxl_folder, root))
    return found


def main() -> None:
    """Measure and record."""
    arguments = sys.argv[1:]
    result: dict[str, Any] = {"threads": set_threads(), "cpu": on_cpu(arguments)}
    if torch.cuda.is_available():
        from true_gpu import on_gpu

        result["gpu"] = on_gpu()
    else:
        result["gpu"] = "torch sees no CUDA GPU here, so that the GPU part is not measured"
        print(result["gpu"], file=sys.stderr)
    record("true_size_small" if "--small" in arguments else "true_size", result)


if __name__ == "__main__":
    main()
