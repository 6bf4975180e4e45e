"""Where the time of a training step goes, part by part, and the most memory used: the quickstart's recipe.

    python benchmarks/training_step.py

Each part is timed alone on one batch, forward; `step` is the whole: forward, backward, AdamW.
"""

import statistics
import time
from collections.abc import Callable

import torch
from record import record

from lavibridge.core.contracts import Batch
from lavibridge.core.device import set_threads
from lavibridge.recipes.recipe import load_recipe
from lavibridge.training.build import build_bridge
from lavibridge.training.metrics import peak_memory_mib
from lavibridge.world.captions import sample_pair
from lavibridge.world.drawing import draw

REPEATS = 10


def seconds(work: Callable[[], object]) -> dict[str, float]:
    """Median, least and most of REPEATS runs after one to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


def main() -> None:
    """Measure and record."""
    threads = set_threads()
    recipe = load_recipe("quickstart")
    bridge, size = build_bridge(recipe), recipe.training.batch
    pairs = [sample_pair(0, index) for index in range(size)]
    pictures = torch.stack([torch.from_numpy(draw(pair.scene)) for pair in pairs])
    images = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    prompts, names = tuple(pair.caption for pair in pairs), tuple(str(pair.index) for pair in pairs)
    parts = {}
    with torch.no_grad():
        parts["autoencoder"] = seconds(lambda: bridge.vision.encode(images))
        latents = bridge.vision.encode(images)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        t = torch.linspace(0, len(bridge.vision.times) - 1, size).long()
        parts["language model"] = seconds(lambda: bridge.features(prompts))
        features = bridge.features(prompts)
        parts["connector"] = seconds(lambda: bridge.connector(features, t))
        conditioning = bridge.connector(features, t)
        parts["denoiser"] = seconds(lambda: bridge.vision.predict(latents, t, conditioning))
    trained = [each for part in bridge.trained_parameters().values() for each in part.values()]
    optimizer = torch.optim.AdamW(trained)
    batch = Batch(prompts=prompts, names=names, latents=latents)

    def step() -> None:
        bridge(batch, t, noise).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    parts["step"] = seconds(step)
    record(
        "training_step",
        {
            "batch": size,
            "threads": threads,
            "n": REPEATS,
            "seconds": parts,
            "images per second": size / parts["step"]["median"],
            "trained weights": sum(each.numel() for each in trained),
            "peak memory MiB": peak_memory_mib(),
        },
    )


if __name__ == "__main__":
    main()
