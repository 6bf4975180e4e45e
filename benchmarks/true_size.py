"""Peak memory at published sizes against `lavi plan`; on a GPU also images a second.

    python benchmarks/true_size.py                               T5-Large into Stable Diffusion 1.4, the GPU
    python benchmarks/true_size.py --vision sdxl --works draw    drawing with T5-Large and SDXL, the GPU
    python benchmarks/true_size.py --widths toys                 every part at toy size, on the CPU

The CPU part makes folders with random weights in the hub's layout, then draws with all weights in memory and
with the denoiser's in files, trains, trains with a teacher, and trains from cached features without the
language model, each in a process of its own, at batch 1 in float32. `peak` is the most that the process held
in memory (VmHWM of Linux); `anonymous` leaves out the pages of weight files that are mapped, which the system
takes back where it needs them. Without a GPU the script says so and ends after the CPU part.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any, get_args

import torch
from record import record
from spread import fresh
from true_folders import Widths, sd_folder, sdxl_folder, t5_folder
from true_gpu import TOYS, Scale, on_gpu

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.device import set_threads
from lavibridge.core.placement import Placement
from lavibridge.core.process_rank import ProcessRank
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.plan.devices import GIB, find_device
from lavibridge.plan.plan import PlanOptions, make_plan
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.cache.precompute import precompute_features, precompute_latents
from lavibridge.training.train import train

SCENES, STEPS = 4, 2
PROMPT = "a red circle to the left of a blue square"
TEACHER = {"teacher": {"guidance": 2.0}}
VISIONS: Mapping[str, Callable[[Path, Widths], Path]] = {"sd14": sd_folder, "sdxl": sdxl_folder}
WORKS = ("draw", "draw, offloaded", "train", "train with a teacher", "train from cached features")
SETTINGS = {"draw": "train", "draw, offloaded": "train"}
"""Works that the plan of another one counts."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two folders, and the size of pictures; None is the vision model's own."""

    language: str
    vision: str
    size: int | None = None

    def recipe(self, work: str, cache: str = "cache") -> Recipe:
        """The pair as it was published, at batch 1, on scenes of the miniature world."""
        is_cached = work == "train from cached features"
        return make_recipe(
            {
                "language": {"source": self.language},
                "vision": {"source": self.vision},
                "connector": {"kind": "lavi"},
                "lora": {"language": None if is_cached else {"rank": 32}, "vision": {"rank": 32}},
                "data": {"kind": "world", "scenes": SCENES, "size": self.size},
                "training": {
                    "steps": STEPS,
                    "batch": 1,
                    "preview_every": 0,
                    "checkpoint_every": 0,
                    "lr": {}
                    if is_cached
                    else {"language_lora": 1e-5, "connector": 1e-5, "vision_lora": 1e-5},
                    **({"cache": {"folder": cache}} if is_cached else {}),
                    **(TEACHER if work == "train with a teacher" else {}),
                },
            }
        )


def planned(pair: Pair, settings: str) -> dict[str, float]:
    """What `lavi plan` says of the works with the same settings, in GiB."""
    found = make_plan(pair.recipe(settings), find_device("here"), PlanOptions(pictures=SCENES))
    sizes = {"draw": found.drawing, "draw, offloaded": found.drawing_offloaded}
    sizes[settings] = found.memory_without_language_model or found.memory_total
    return {work: size / GIB for work, size in sizes.items()}


def measured(pair: Pair, work: str) -> dict[str, float]:
    """A work's peaks in GiB, and the seconds that it took."""
    set_threads()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if work.startswith("draw"):
            with watched() as found:
                draw(pair, place if work == "draw, offloaded" else None)
        else:
            recipe = pair.recipe(work, str(place / "cache"))
            if recipe.training.cache is not None:
                fresh(fill_cache, recipe)
            with watched() as found:
                train(recipe, place / "run")
    return found


def draw(pair: Pair, offload: Path | None) -> None:
    """Draw one guided picture with an untrained bridge, LoRA merged, in two steps."""
    bridge = Bridge.compose(pair.language, pair.vision).merge().eval()
    if offload is not None:
        bridge.vision.finalize_weights(Placement(device=bridge.device, offload=offload))
    BridgePipeline(bridge)(PROMPT, num_inference_steps=STEPS, seed=0, height=pair.size, width=pair.size)


def fill_cache(recipe: Recipe) -> None:
    """Cache the features and latents of all scenes, as `lavi cache` does."""
    settings = recipe.training
    assert settings.cache is not None  # the caller has set it
    bridge = build_bridge(recipe)
    dataset = open_dataset(kind_of_section(recipe.data), recipe.data, RejectedPictures())
    share = ProcessRank()
    precompute_features(bridge, dataset, settings, settings.cache, share)
    side = recipe.data.size or bridge.vision.default_size
    precompute_latents(bridge, dataset, settings, settings.cache, (side, side), share)


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


def against_plan(pair: Pair, works: Sequence[str]) -> dict[str, Any]:
    """Works of a pair, each measured in a process of its own and planned in another."""
    rows: dict[str, Any] = {}
    plans = {
        settings: fresh(planned, pair, settings) for settings in {SETTINGS.get(work, work) for work in works}
    }
    for work in works:
        plan = plans[SETTINGS.get(work, work)][work]
        found = fresh(measured, pair, work)
        rows[work] = {**found, "plan": plan, "peak over plan": found["peak"] / plan}
        print(work, rows[work], file=sys.stderr, flush=True)  # the record comes at the end
    return rows


def on_cpu(asked: argparse.Namespace) -> dict[str, Any]:
    """The pairs that were asked for."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        root = Path(name)
        language = str(fresh(t5_folder, root, asked.widths))
        found = {}
        for vision in asked.vision:
            folder = fresh(VISIONS[vision], root, asked.widths)
            pair = Pair(language=language, vision=str(folder), size=asked.size)
            found[f"t5-large_{vision}"] = against_plan(pair, asked.works)
    return found


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Peak memory at published sizes against `lavi plan`.")
    parser.add_argument("--vision", nargs="+", choices=tuple(VISIONS), default=["sd14"], metavar="NAME")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK")
    parser.add_argument("--size", type=int, help="Pixels of a side.  [default: the model's own]")
    parser.add_argument("--widths", choices=get_args(Widths), default="published")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Measure and record."""
    asked = arguments(words)
    result: dict[str, Any] = {
        "threads": set_threads(),
        "widths": asked.widths,
        "size": asked.size,
        "cpu": on_cpu(asked),
    }
    if asked.widths == "toys":
        result["gpu"] = on_gpu(TOYS)
    elif torch.cuda.is_available():
        result["gpu"] = on_gpu(Scale())
    else:
        result["gpu"] = "torch sees no CUDA GPU here, so that the GPU part is not measured"
        print(result["gpu"], file=sys.stderr)
    record("true_size_toys" if asked.widths == "toys" else "true_size", result)


if __name__ == "__main__":
    main(sys.argv[1:])
