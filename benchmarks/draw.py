"""Measures the cost of an image in the published way and in lavibridge, and what cheaper settings lose.

    python benchmarks/draw.py [RUN]           all; RUN is a bridge of the miniature world (runs/quickstart)
    python benchmarks/draw.py [RUN] world     or proportions, diffusers, scores, step-cache

world        the published way (Zhao et al. 2024, arXiv 2403.07860: float32, unmerged LoRA, UniPC, 50 steps,
             all with guidance) against each quality, four images by the bridge of RUN
proportions  the published way against `exact`, a U-Net with random weights at Stable Diffusion's proportions
diffusers    mini-sd against Diffusers' own pipeline with channels_last, at equal steps
scores       right images by the checker, with the same prompts and noises, as paired differences
step-cache   mini-pixart with steps that reuse the previous step: right images, and processor time

All variants take turns in each round, in several processes one after the other. A ratio is the median over
processes with a 95 % bootstrap interval; the value of a process is the median over its rounds.
"""

import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from PIL import Image
from published import pair
from record import record
from spread import PROCESSES, across, fresh
from train_step import SMALL

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.device import cpu_computes_bfloat16, set_threads
from lavibridge.core.paths import models_folder
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.generation.quality import QUALITIES
from lavibridge.lora import LoraSettings

Way = Callable[[], Any]
PUBLISHED_STEPS, STEPS, GUIDANCE = 50, 20, 4.0
PICTURES, ROUNDS, PROMPTS = 4, 2, 100
PROMPT = "a red circle to the left of a blue square"
PIXART_GUIDANCE = 2.0
"""By mini-pixart's card."""
THRESHOLDS = (0.05, 0.1, 0.2)
CATEGORIES = ("one", "two", "spatial")
LATENTS: list[torch.Tensor] = []
"""What was decoded last."""


def as_published(bridge: Bridge) -> Bridge:
    """LoRA apart, and the denoiser's weights in the plain order."""
    bridge.vision.backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return bridge


def drawing(bridge: Bridge, **options: Any) -> Way:
    """Four pictures at a time, the latents kept; or one at a time."""
    at_once = options.pop("at_once", PICTURES)
    decode = bridge.vision.decode

    def keep(latents: torch.Tensor) -> torch.Tensor:
        LATENTS[:] = [latents]
        return decode(latents)

    def draw() -> None:
        bridge.vision.decode = keep  # type: ignore[method-assign]
        for start in range(0, PICTURES, at_once):
            BridgePipeline(bridge)(
                [PROMPT] * at_once,
                guidance_scale=GUIDANCE,
                seed=list(range(start, start + at_once)),
                **options,
            )

    return draw


def pipeline(at_once: int) -> Way:
    """Diffusers' own, of mini-sd, as its documentation has it for a CPU."""
    from diffusers import DiffusionPipeline, UniPCMultistepScheduler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = DiffusionPipeline.from_pretrained(models_folder() / "mini-sd", torch_dtype=torch.float32)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)

    def draw() -> None:
        for start in range(0, PICTURES, at_once):
            seeds = [torch.Generator().manual_seed(seed) for seed in range(start, start + at_once)]
            pipe([PROMPT] * at_once, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds)

    return draw


def timed(ways: Mapping[str, Way], rounds: int = ROUNDS) -> dict[str, Any]:
    """Seconds of each way, and how many times faster than the first it is; medians of the rounds."""
    for way in ways.values():
        way()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            begun = (perf_counter(), process_time())
            way()
            spent[name].append((perf_counter() - begun[0], process_time() - begun[1]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    first = spent[next(iter(ways))]
    return {
        clock: {
            "seconds": {
                name: statistics.median(each[place] for each in laps) for name, laps in spent.items()
            },
            "times faster": {
                name: statistics.median(a[place] / b[place] for a, b in zip(first, laps, strict=True))
                for name, laps in spent.items()
            },
        }
        for place, clock in enumerate(("by the clock", "processor time"))
    }


def rounded(bridge: Bridge) -> Bridge:
    """The bridge as one whose recipe says `vision.dtype: bfloat16`."""
    bridge.vision.backbone.to(torch.bfloat16)
    bridge.vision.config = bridge.vision.config.model_copy(update={"dtype": "bfloat16"})
    return bridge


def against_published(open_bridge: Callable[[], Bridge], steps: int, **size: Any) -> dict[str, Any]:
    """The published way against `exact`, and how far apart the latents end; at 50 steps all qualities."""
    published, merged = as_published(open_bridge()), open_bridge().merge()
    ways = {"published": drawing(published, num_inference_steps=steps, **size)}
    ways["exact, as many steps"] = drawing(merged, num_inference_steps=steps, **size)
    if cpu_computes_bfloat16():
        ways["exact, as many steps, bfloat16"] = drawing(
            rounded(open_bridge().merge()), num_inference_steps=steps, **size
        )
    ways["published"]()
    expected, errors = LATENTS[0], {}
    for name, way in ways.items():
        way()
        errors[name] = float((LATENTS[0] - expected).norm() / expected.norm())
    if steps == PUBLISHED_STEPS:
        ways |= {name: drawing(merged, quality=name, **size) for name in QUALITIES}
    return {"relative error of the latents": errors, "pictures": PICTURES, **timed(ways)}


def proportioned() -> Bridge:
    """A pair with random weights at the published proportions, LoRA of rank 32 as published."""
    torch.manual_seed(0)
    lora = LoraSettings(rank=32, dropout=0.0)
    return Bridge.compose(*pair("t5", "sd", SMALL, {"max_tokens": 77}), "lavi", lora, lora).eval()


def against_diffusers() -> dict[str, Any]:
    """mini-sd under its own encoder, by its pipeline and by each quality."""
    bridge = BridgePipeline.native("mini-sd", device="cpu").bridge
    found = {}
    for at_once in (1, PICTURES):
        ways = {"Diffusers' pipeline": pipeline(at_once)}
        ways["exact, as many steps"] = drawing(bridge, num_inference_steps=STEPS, at_once=at_once)
        ways |= {name: drawing(bridge, quality=name, at_once=at_once) for name in ("high", "fast")}
        found[f"{at_once} at a time"] = timed(ways)
    return found


def scores(run: str) -> dict[str, Any]:
    """What each quality loses against the published 50 steps, by the exact checker."""
    bridge = BridgePipeline.from_pretrained(run, device="cpu").bridge
    ways: dict[str, dict[str, Any]] = {"published": {"num_inference_steps": PUBLISHED_STEPS}}
    ways |= {name: {"quality": name} for name in QUALITIES}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in ways.items():
            out = Path(folder) / name
            results = evaluate(bridge, "world", out, categories=CATEGORIES, limit=PROMPTS, **options)
            found[name] = {"right": results["metrics"]["world"]["all"]}
            if name != "published":
                found[name]["difference"] = compare_evaluations(out, Path(folder) / "published")
    return found


class Drawing:
    """A bridge that draws with options that `evaluate` has not."""

    def __init__(self, bridge: Bridge, **options: Any) -> None:
        self.bridge, self.options = bridge, options
        self.distilled_guidance_scale, self.origin = bridge.distilled_guidance_scale, bridge.origin

    def generate(
        self,
        prompts: Sequence[str],
        seed: Sequence[int],
        num_inference_steps: int,
        guidance_scale: float | None,
        quality: str,
    ) -> list[Image.Image]:
        """One picture for each prompt."""
        return (
            BridgePipeline(self.bridge)(
                prompts,
                seed=seed,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                quality=quality,
                **self.options,
            )
        ).images


def step_cache() -> dict[str, Any]:
    """What steps that reuse the one before gain and lose, at 50 and at 20 steps."""
    bridge, found = BridgePipeline.native("mini-pixart", device="cpu").bridge, dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for steps in (PUBLISHED_STEPS, STEPS):
            for threshold in (None, *THRESHOLDS):
                out, begun = Path(folder) / f"{steps}-{threshold}", process_time()
                results = evaluate(
                    Drawing(bridge, step_cache=threshold),
                    "world",
                    out,
                    categories=CATEGORIES,
                    limit=PROMPTS,
                    num_inference_steps=steps,
                    guidance_scale=PIXART_GUIDANCE,
                )
                found[f"{steps} steps, {threshold or 'none'}"] = {
                    "right": results["metrics"]["world"]["all"],
                    "difference": compare_evaluations(out, Path(folder) / f"{PUBLISHED_STEPS}-None")[
                        "metrics"
                    ],
                    "processor seconds, judging too": process_time() - begun,
                }
    return found


TIMED: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "world": lambda run: against_published(lambda: Bridge.from_pretrained(run, "cpu"), PUBLISHED_STEPS),
    "proportions": lambda run: against_published(proportioned, 4, height=128, width=128),
    "diffusers": lambda run: against_diffusers(),
}
"""Parts that take the time."""
JUDGED: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "scores": scores,
    "step-cache": lambda run: step_cache(),
}
PARTS = (*TIMED, *JUDGED)


def measure(part: str, run: str) -> dict[str, Any]:
    """One process's part."""
    return {"threads": set_threads(), **TIMED[part](run)}


def main() -> None:
    """Measure and record, part by part."""
    run = next((each for each in sys.argv[1:] if each not in PARTS), "runs/quickstart")
    chosen = [each for each in sys.argv[1:] if each in PARTS] or PARTS
    settings = {"run": Path(run).name}
    turns = [{part: fresh(measure, part, run) for part in chosen if part in TIMED} for _ in range(PROCESSES)]
    for part in turns[0]:
        record(f"draw-{part}", {**settings, **across([turn[part] for turn in turns])})
    set_threads()
    for part in [each for each in chosen if each in JUDGED]:
        record(f"draw-{part}", {**settings, **JUDGED[part](run)})


if __name__ == "__main__":
    main()
