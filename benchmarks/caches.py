"""Measures how much CPU time the caches save per training step; all variants take turns in one run.

    python benchmarks/caches.py [--repeats 9] [--batch 8]

A step is a forward and a backward pass of a miniature bridge whose language model has no LoRA. Each variant
uses the same samples: it encodes images or reads latents from disk, and encodes captions or reads features
from disk. CPU time, unlike wall time, excludes other work on the machine.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from time import process_time

import torch

from lavibridge.bridge import Bridge
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.recipes.recipe import Recipe, load_recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.cache.caches import open_caches
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.loop import training_mode

SIDE = (64, 64)


def recipe(batch: int, *settings: str) -> Recipe:
    """Return the miniature recipe with a frozen language model."""
    frozen = "lora={language: null, vision: {rank: 16, dropout: 0.0}}"
    common = [frozen, "training.align=null", f"training.batch={batch}", "training.latent_cache_gb=0"]
    return load_recipe("mini-llama_mini-sd_lavi", [*common, *settings])


def seconds(bridge: Bridge, batches: BatchLoader, step: int) -> float:
    """Measure the CPU time of one step: loading, forward pass and backward pass."""
    begun = process_time()
    draw = batches.draw(step, 0)
    bridge(draw.batch, draw.t, draw.noise).mean().backward()
    return process_time() - begun


def fed(bridge: Bridge, dataset: Dataset, chosen: Recipe) -> BatchLoader:
    """Create a BatchLoader with the caches of a recipe."""
    caches = open_caches(bridge, dataset, chosen.training)
    return BatchLoader(dataset, bridge.vision, chosen.training, SIDE, caches=caches)


def main() -> None:
    """Print each variant's median CPU time, and its ratio to the one without caches, with quartiles."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    plain = recipe(given.batch)
    dataset = open_dataset(kind_of_section(plain.data), plain.data, RejectedPictures())
    bridge = build_bridge(plain)
    training_mode(bridge)
    with tempfile.TemporaryDirectory() as folder:
        where = f"training.cache.folder={Path(folder)}"
        ways = {
            "no cache": plain,
            "latents": recipe(given.batch, where, "training.cache.features=false"),
            "latents and features": recipe(given.batch, where),
        }
        feeds = {name: fed(bridge, dataset, chosen) for name, chosen in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for step in range(given.repeats + 1):
            for name, batches in feeds.items():
                if name != "no cache":
                    batches.draw(step, 0)  # fills
                    batches.caches.latents.backend.close()  # to the disk
                spent = seconds(bridge, batches, step)
                if step:
                    times[name].append(spent)
        for name, found in times.items():
            ratios = [a / b for a, b in zip(found, times["no cache"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            middles = f"{statistics.median(found):.3f} s  x {middle:.3f}"
            print(f"{name:24} {middles} ({low:.3f} to {high:.3f}), n = {len(ratios)}")


if __name__ == "__main__":
    main()
