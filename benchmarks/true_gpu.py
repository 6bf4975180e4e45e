"""The GPU part of `true_size.py`, in under eight minutes: published pairs at their true shapes.

training    images a second, utilisation, peak memory against the plan, the largest batch in 24 GiB
4 bits      Llama-2-7B in 4 bits into Stable Diffusion 1.4 at batch 8: does it fit in 16 GiB?
drawing     Stable Diffusion 1.4 natively against Diffusers' own pipeline, both as they are and compiled

Utilisation is the share of the data sheet's rate in bfloat16, for a card that `lavi plan` knows. `TOYS` runs
the same code at toy size, on a CPU too, where its numbers say nothing. No GPU has run this part yet.
"""

import re
import resource
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import diffusers
import torch
from published import composed
from true_folders import sd_folder

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.contracts import Batch
from lavibridge.plan.devices import GIB, GPUS, UTILISATION, Device
from lavibridge.plan.metered_passes import training_pass
from lavibridge.plan.search import SHARE
from lavibridge.training.optimization import make_optimizer

PAIRS = ("t5-large_sd14_lavi", "t5-large_pixart_lavi")
LLAMA = "llama2-7b_sd14_lavi"
BUDGET = 480.0
"""Seconds in all; a part that would begin later is left out."""
PROMPT = "a red circle to the left of a blue square"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured, and on what."""

    device: str = "cuda"
    is_toy: bool = False
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    llama_batch: int = 8
    warmup: int = 3
    steps: int = 20
    training_seconds: float = 90.0
    """Seconds after which a pair gets no larger batch."""
    rounds: int = 8
    """Pictures of each way of drawing."""
    denoising_steps: int = 20
    compiler: str = "inductor"


TOYS = Scale(
    device="cpu",
    is_toy=True,
    batches=(1, 2),
    llama_batch=2,
    warmup=1,
    steps=1,
    rounds=1,
    denoising_steps=1,
    compiler="eager",
)


def on_gpu(scale: Scale) -> dict[str, Any]:
    """Every measurement, with the seconds that it took."""
    torch.backends.cuda.matmul.allow_tf32 = True
    name = torch.cuda.get_device_name() if scale.device == "cuda" else "none: toys on the CPU"
    parts: Mapping[str, Callable[[Scale], Any]] = {
        **{f"training {pair}": partial(training, pair, known_card(name)) for pair in PAIRS},
        "4 bits": four_bits,
        "drawing": drawing,
    }
    found: dict[str, Any] = {"gpu": name}
    begun = perf_counter()
    for part, measure in parts.items():
        started = perf_counter()
        if started - begun > BUDGET:
            found[part] = f"left out: {BUDGET:g} seconds have passed"
            continue
        found[part] = measure(scale)
        found[f"{part}, seconds"] = perf_counter() - started
        if scale.device == "cuda":
            torch.cuda.empty_cache()
    return found


def known_card(name: str) -> Device | None:
    """The card of the plan's table that a driver's name contains, such as `NVIDIA H200`; None if unknown."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    names = sorted(GPUS, key=len, reverse=True)
    return next((GPUS[each] for each in names if each.replace("-", "") in plain), None)


def training(pair: str, card: Device | None, scale: Scale) -> dict[str, Any]:
    """Growing batches of a pair, until memory or time is up."""
    with torch.device("meta"):
        recipe, meta_bridge = composed(pair, scale.is_toy)
    with torch.device(scale.device):
        bridge = composed(pair, scale.is_toy)[1].to(scale.device)
    rows: dict[int, Any] = {}
    begun = perf_counter()
    for batch in scale.batches:
        if perf_counter() - begun > scale.training_seconds:
            break
        try:
            seconds, memory = run(bridge, batch, scale)
        except torch.OutOfMemoryError:
            break
        work = training_pass(meta_bridge.to("meta"), recipe, batch, None, scale.device)
        trained = sum(weight.numel() for weight in bridge.parameters() if weight.requires_grad)
        plan = sum(weight.nbytes for weight in bridge.parameters()) + work.peak + 8 * trained
        rate = work.flops() / seconds
        rows[batch] = {
            "images a second": batch / seconds,
            "TFLOP/s": rate / 1e12,
            "utilisation": None if card is None else rate / (card.half / UTILISATION["arithmetic"]),
            "peak GiB": memory / GIB,
            "planned GiB": plan / GIB,
            "peak over plan": memory / plan,
        }
    fitting = [batch for batch, row in rows.items() if row["peak GiB"] <= SHARE * 24]
    return {"batches": rows, "largest power of two in 24 GiB": max(fitting, default=0), "n": scale.steps}


def four_bits(scale: Scale) -> dict[str, Any] | str:
    """Peak memory of a step under a language model in 4 bits, quantised as a recipe's is."""
    if find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed: pip install 'lavibridge[quantize]'"
    with torch.device(scale.device):
        bridge = composed(LLAMA, scale.is_toy, quantize="4bit")[1]
    bridge.to(scale.device)
    if scale.device == "cuda":
        torch.cuda.empty_cache()
    seconds, memory = run(bridge, scale.llama_batch, scale)
    return {
        "batch": scale.llama_batch,
        "images a second": scale.llama_batch / seconds,
        "peak GiB": memory / GIB,
        "fits in 16 GiB": memory <= SHARE * 16 * GIB,
    }


def run(bridge: Bridge, batch: int, scale: Scale) -> tuple[float, int]:
    """Seconds of a training step with autocast to bfloat16, and the most bytes held."""
    device, side = scale.device, bridge.vision.default_size
    parts = bridge.trained_parameters()
    optimizer = make_optimizer(parts, dict.fromkeys(parts, 1e-5), 1e-2)
    latents = torch.randn(batch, *bridge.vision.latent_shape(side, side), device=device)
    prompts = ("a" * bridge.language.max_tokens,) * batch
    sample = Batch(prompts=prompts, names=prompts, latents=latents)
    t = torch.randint(0, len(bridge.vision.times), (batch,), device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = 0.0
    for number in range(scale.warmup + scale.steps):
        if number == scale.warmup:
            begun = now(device)
        with torch.autocast(device, torch.bfloat16):
            loss = bridge(sample, t, torch.randn_like(latents)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (now(device) - begun) / scale.steps, most_held(device)


def drawing(scale: Scale) -> dict[str, Any]:
    """Seconds of a picture in bfloat16; and how many times faster ours is than Diffusers'."""
    call: dict[str, Any] = {"num_inference_steps": scale.denoising_steps, "guidance_scale": 7.5}
    with tempfile.TemporaryDirectory() as folder:
        place = sd_folder(Path(folder), "toys" if scale.is_toy else "published")
        found: dict[str, Any] = {}
        for way in ("as it is", "compiled"):
            ours = BridgePipeline.native(place, device=scale.device, dtype="bfloat16")
            theirs: Any = diffusers.StableDiffusionPipeline.from_pretrained(
                place, torch_dtype=torch.bfloat16, safety_checker=None
            ).to(scale.device)
            theirs.set_progress_bar_config(disable=True)
            if way == "compiled":
                ours.bridge.vision.compile_blocks(scale.compiler)
                theirs.unet.compile_repeated_blocks(backend=scale.compiler)
            seconds = {
                "lavibridge": timed(partial(ours, PROMPT, seed=0, **call), scale),
                "Diffusers": timed(partial(theirs, PROMPT, **call), scale),
            }
            found[way] = {**seconds, "times faster": seconds["Diffusers"] / seconds["lavibridge"]}
    return found


def timed(work: Callable[[], object], scale: Scale) -> float:
    """Median seconds of a work that has run once before."""
    work()
    rounds: list[float] = []
    for _ in range(scale.rounds):
        begun = now(scale.device)
        work()
        rounds.append(now(scale.device) - begun)
    return median(rounds)


def now(device: str) -> float:
    """The clock, once the device has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return perf_counter()


def most_held(device: str) -> int:
    """The most bytes allocated on a GPU since the last reset, or resident in this process ever."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
