"""Measures how the cost of training, generation and caches grows with batch, size, tokens, width and rank.

    python benchmarks/growth.py            all, and docs/growth.png

The models are those of train_step.py: Stable Diffusion's proportions with random weights. From one base
(batch 4, 128 x 128 images, 16 tokens, a T5 of width 256, rank 8) one setting changes at a time. All points
of a curve take turns in each round. A ratio is the median over rounds of the processor time relative to the
base, with a 95 % bootstrap interval. Memory is the peak that the allocator holds in a step beyond the
models.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import torch
from published import pair
from record import record
from spread import interval
from torch.profiler import ProfilerActivity, profile
from train_step import SMALL

from lavibridge import Bridge, BridgePipeline
from lavibridge.cli.cache import fill_cache
from lavibridge.core.contracts import Batch
from lavibridge.core.device import set_threads
from lavibridge.lora import LoraSettings
from lavibridge.training.loop import training_mode

ROUNDS = 5
MIB = 2**20
BASE = {"batch": 4, "side": 128, "tokens": 16, "width": 256, "rank": 8}
TRAINING: Mapping[str, Sequence[int]] = {
    "batch": (1, 2, 4, 8),
    "side": (64, 128, 192, 256),
    "tokens": (8, 16, 32, 64),
    "width": (128, 256, 512, 1024),
    "rank": (2, 8, 32, 64),
}
AXIS_LABELS = {
    "batch": "pictures in a batch",
    "side": "side of a picture, pixels",
    "tokens": "tokens of a prompt",
    "width": "width of the language model",
    "rank": "rank of LoRA",
    "pictures": "pictures at a time",
    "steps": "steps",
}
DRAWING: Mapping[str, Sequence[int]] = {"pictures": (1, 2, 4, 8), "steps": (5, 10, 20, 40)}
DRAWN = {"pictures": 1, "steps": 10}
SCENES = (250, 500, 1000)
PICTURE = Path(__file__).parents[1] / "docs" / "growth.png"

Point = dict[str, Any]


def bridge_of(width: int, rank: int) -> Bridge:
    """The pair, with a language model of a width."""
    torch.manual_seed(0)
    language = {**SMALL["language"], "d_model": width, "d_ff": 4 * width, "num_heads": width // 32}
    lora = LoraSettings(rank=rank, dropout=0.0)
    models = pair("t5", "sd", {**SMALL, "language": language}, {"max_tokens": 77})
    return Bridge.compose(*models, {"kind": "lavi", "dropout": 0.0}, lora, lora)


def training_step(batch: int, side: int, tokens: int, width: int, rank: int) -> Callable[[], None]:
    """A step on latents that are there already: forwards, backwards, AdamW."""
    bridge = bridge_of(width, rank)
    training_mode(bridge)
    weights = [each for part in bridge.trained_parameters().values() for each in part.values()]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
    latents = torch.randn(batch, *bridge.vision.latent_shape(side, side))
    prompts = ("a" * (tokens - 1),) * batch  # random tokenizers take a letter for a token, and end with one
    assert bridge.language.count_tokens(list(prompts))[0][0] == tokens
    t, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(latents)

    def step() -> None:
        bridge(Batch(prompts=prompts, names=prompts, latents=latents), t, noise).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def drawing(pictures: int, steps: int) -> Callable[[], None]:
    """Pictures of one prompt, with guidance."""
    bridge = bridge_of(BASE["width"], BASE["rank"])

    def draw() -> None:
        BridgePipeline(bridge)(
            ["a red circle"] * pictures,
            num_inference_steps=steps,
            guidance_scale=7.5,
            seed=list(range(pictures)),
        )

    return draw


def curve(works: Mapping[int, Callable[[], None]], base: int) -> list[Point]:
    """Each point's time against the base's, and its memory."""
    memory = {at: allocated(work) for at, work in works.items()}  # also warms up
    seconds: dict[int, list[float]] = {at: [] for at in works}
    for _ in range(ROUNDS):
        for at, work in works.items():
            begun = process_time()
            work()
            seconds[at].append(process_time() - begun)
    return [
        {
            "at": at,
            "times": interval([a / b for a, b in zip(seconds[at], seconds[base], strict=True)]),
            "processor seconds": interval(seconds[at])["median"],
            "MiB": round(memory[at] / MIB, 1),
        }
        for at in works
    ]


def allocated(work: Callable[[], None]) -> int:
    """The most bytes that the allocator holds beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    held = most = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda each: each.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def caches() -> list[Point]:
    """What a cache of latents and features takes, by scenes."""
    points = []
    for scenes in SCENES:
        with tempfile.TemporaryDirectory() as folder:
            settings = ["lora.language=null", f"data.scenes={scenes}", f"training.cache.folder={folder}"]
            begun = process_time()
            fill_cache("mini-llama_mini-sd_lavi", settings)
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            points.append(
                {"scenes": scenes, "processor seconds": process_time() - begun, "MiB": round(size / MIB, 2)}
            )
    return points


def save_curves(curves: Mapping[str, list[Point]]) -> None:
    """One panel a curve, both axes logarithmic; dashed, cost in proportion."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    for panel, (name, points) in zip(panels.flat, curves.items(), strict=False):
        at = [point["at"] for point in points]
        base = next(point for point in points if point["times"]["median"] == 1)
        medians = [point["times"]["median"] for point in points]
        low = [point["times"]["median"] - point["times"]["low"] for point in points]
        high = [point["times"]["high"] - point["times"]["median"] for point in points]
        panel.errorbar(at, medians, [low, high], marker="o", label="processor time")
        memory = [point["MiB"] / base["MiB"] for point in points]
        panel.plot(at, memory, marker="s", linestyle=":", label="memory")
        panel.plot(at, [each / base["at"] for each in at], color="0.6", linestyle="--", label="in proportion")
        panel.set(xscale="log", xlabel=AXIS_LABELS[name.split(", ")[-1]], title=name)
        panel.set_yscale("log", base=2)
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xticks(at, [str(each) for each in at])
        panel.minorticks_off()
    for panel in panels.flat[len(curves) :]:
        panel.axis("off")
    panels.flat[0].legend()
    figure.supylabel("times the base")
    figure.savefig(PICTURE, dpi=90)


def main() -> None:
    """Measure, record and draw."""
    threads = set_threads()
    curves = {}
    for name, values in TRAINING.items():
        works = {value: training_step(**{**BASE, name: value}) for value in values}
        curves[f"training, {name}"] = curve(works, BASE[name])
    for name, values in DRAWING.items():
        works = {value: drawing(**{**DRAWN, name: value}) for value in values}
        curves[f"drawing, {name}"] = curve(works, DRAWN[name])
    save_curves(curves)
    record("growth", {"threads": threads, "base": BASE, "curves": curves, "caches": caches()})


if __name__ == "__main__":
    main()
