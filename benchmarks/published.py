"""Builds pairs of models of any size with random weights, and measures the published pairs on a GPU.

python benchmarks/train_step.py --gpu
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from published_configs import AUTOENCODER, LLAMA_7B, PIXART, SD14, T5_LARGE
from record import record

from lavibridge import Bridge
from lavibridge.core import registry
from lavibridge.core.contracts import Batch
from lavibridge.lora import LoraSettings
from lavibridge.plan.devices import GIB, GPUS, UTILISATION
from lavibridge.plan.metered_passes import training_pass
from lavibridge.recipes.recipe import Recipe, load_recipe
from lavibridge.training.loop import training_mode
from lavibridge.training.optimization import make_optimizer

Sizes = Mapping[str, Mapping[str, Any]]
AUTOENCODER_512 = {**AUTOENCODER, "sample_size": 512}
PUBLISHED: Mapping[str, Sizes] = {
    "t5-large_sd14_lavi": {"language": T5_LARGE, "vision": SD14, "autoencoder": AUTOENCODER_512},
    "llama2-7b_sd14_lavi": {"language": LLAMA_7B, "vision": SD14, "autoencoder": AUTOENCODER_512},
    "t5-large_pixart_lavi": {"language": T5_LARGE, "vision": PIXART, "autoencoder": AUTOENCODER_512},
}
STEPS = 20


def pair(
    language: str, vision: str, sizes: Sizes, options: Mapping[str, Any], dtype: str = "float32"
) -> tuple[Any, Any]:
    """A language and a vision model of these kinds and sizes, with random weights."""
    speaker, painter = registry.load_kind("language", language), registry.load_kind("vision", vision)
    speaker = type(speaker.__name__, (speaker,), {"toy": sizes["language"]})
    toys = {"toy": sizes["vision"], "toy_autoencoder": sizes["autoencoder"]}
    painter = type(painter.__name__, (painter,), toys)
    return (
        speaker(speaker.Config(source="random", dtype=dtype, **options)),
        painter(painter.Config(source="random", dtype=dtype)),
    )


def composed(name: str) -> tuple[Recipe, Bridge]:
    """A published recipe's bridge at its true shapes, frozen weights in bfloat16."""
    recipe = load_recipe(name, ["language.dtype=bfloat16", "vision.dtype=bfloat16"])
    language, vision = recipe.language.model_dump(), recipe.vision.model_dump()
    models = pair(
        language["kind"], vision["kind"], PUBLISHED[name], {"max_tokens": language["max_tokens"]}, "bfloat16"
    )
    lora = LoraSettings(rank=32, dropout=0.0)
    bridge = Bridge.compose(*models, recipe.connector.model_dump(), lora, lora)
    training_mode(bridge)
    return recipe, bridge


def measure(name: str) -> dict[str, Any]:
    """Images a second, utilisation and memory at growing batches, and the largest batch in 24 GiB."""
    with torch.device("meta"):
        recipe, meta_bridge = composed(name)
    with torch.device("cuda"):
        bridge = composed(name)[1].to("cuda")
    parts = bridge.trained_parameters()
    optimizer = make_optimizer(parts, dict.fromkeys(parts, 1e-5), 1e-2)
    rows: dict[int, Any] = {}
    batch = 1
    while True:
        try:
            seconds, memory = run(bridge, optimizer, batch)
        except torch.OutOfMemoryError:
            break
        flops = training_pass(meta_bridge.to("meta"), recipe, batch, None, "cuda").flops()
        rows[batch] = {
            "images per second": batch / seconds,
            "utilisation": {
                card: flops / seconds / (each.half / UTILISATION["arithmetic"]) for card, each in GPUS.items()
            },
            "peak GiB": memory / GIB,
        }
        batch *= 2
    fitting = [size for size, row in rows.items() if row["peak GiB"] <= 0.92 * 24]
    return {"batches": rows, "largest power of two in 24 GiB": max(fitting, default=0), "n": STEPS}


def run(bridge: Bridge, optimizer: torch.optim.Optimizer, batch: int) -> tuple[float, int]:
    """Seconds a step, after three to warm up, and the most bytes held."""
    side = bridge.vision.default_size
    latents = torch.randn(batch, *bridge.vision.latent_shape(side, side), device="cuda")
    prompts = ("a" * bridge.language.max_tokens,) * batch
    sample = Batch(prompts=prompts, names=prompts, latents=latents)
    t = torch.randint(0, len(bridge.vision.times), (batch,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    begun = 0.0
    for number in range(3 + STEPS):
        if number == 3:
            torch.cuda.synchronize()
            begun = perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = bridge(sample, t, torch.randn_like(latents)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    return (perf_counter() - begun) / STEPS, torch.cuda.max_memory_allocated()


def gpu() -> None:
    """Measure the published pairs, or say why not."""
    if not torch.cuda.is_available():
        raise SystemExit("error: torch sees no CUDA GPU here, so that the published pairs are not measured")
    record(
        "train_step_gpu",
        {"gpu": torch.cuda.get_device_name(), "pairs": {name: measure(name) for name in PUBLISHED}},
    )
