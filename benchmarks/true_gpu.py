"""The GPU part of `true_size.py`, in under eight minutes: published pairs at their true shapes.

training    images a second, utilisation, peak memory against the plan, the largest batch in 24 GiB
4 bits      Llama-2-7B in 4 bits into Stable Diffusion 1.4 at batch 8: does it fit in 16 GiB?
drawing     Stable Diffusion 1.4 natively against Diffusers' own pipeline, both as they are and compiled

Not tried yet: no GPU was at hand.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import diffusers
import torch
from published import composed, run
from torch import nn
from true_folders import sd_folder

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.plan.devices import GIB
from lavibridge.plan.metered_passes import training_pass
from lavibridge.training.optimization import make_optimizer

PAIRS = ("t5-large_sd14_lavi", "t5-large_pixart_lavi")
BATCHES = (1, 2, 4, 8, 16, 32)
SECONDS = {"training": 120, "drawing": 20}
"""Limits of the time of a pair's trainings, and of a way of drawing."""
OPTIONS: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 7.5}
LLAMA = "llama2-7b_sd14_lavi"


def on_gpu() -> dict[str, Any]:
    """Every measurement."""
    torch.backends.cuda.matmul.allow_tf32 = True
    return {
        "gpu": torch.cuda.get_device_name(),
        "training": {name: training(name) for name in PAIRS},
        "4 bits": four_bits(),
        "drawing": drawing(),
    }


def training(name: str) -> dict[str, Any]:
    """Growing batches of a pair, until memory or time is up."""
    with torch.device("meta"):
        recipe, meta_bridge = composed(name)
    with torch.device("cuda"):
        bridge = composed(name)[1].to("cuda")
    rows: dict[int, Any] = {}
    begun = perf_counter()
    for batch in BATCHES:
        if perf_counter() - begun > SECONDS["training"]:
            break
        try:
            seconds, memory = run(bridge, optimizer_of(bridge), batch)
        except torch.OutOfMemoryError:
            break
        work = training_pass(meta_bridge, recipe, batch, None, "cuda")
        plan = sum(weight.nbytes for weight in bridge.parameters()) + work.peak + optimizer_bytes(bridge)
        rows[batch] = {
            "images a second": batch / seconds,
            "TFLOP/s": work.flops() / seconds / 1e12,
            "peak GiB": memory / GIB,
            "planned GiB": plan / GIB,
        }
    fitting = [batch for batch, row in rows.items() if row["peak GiB"] <= 0.92 * 24]
    return {"batches": rows, "largest power of two in 24 GiB": max(fitting, default=0)}


def four_bits() -> dict[str, Any] | str:
    """Peak memory of a step of eight pictures under a language model in 4 bits."""
    if find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed: pip install 'lavibridge[quantize]'"
    with torch.device("cuda"):
        bridge = composed(LLAMA)[1]
    quantize(bridge.language.backbone)
    bridge.to("cuda")
    torch.cuda.empty_cache()
    seconds, memory = run(bridge, optimizer_of(bridge), 8)
    return {
        "images a second": 8 / seconds,
        "peak GiB": memory / GIB,
        "fits in 16 GiB": memory <= 0.92 * 16 * GIB,
    }


def quantize(model: nn.Module) -> None:
    """Put linear layers in 4 bits (NF4) in the place of frozen ones, LoRA's left out."""
    import bitsandbytes

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is not nn.Linear or child.weight.requires_grad:
                continue
            made = bitsandbytes.nn.Linear4bit(
                child.in_features,
                child.out_features,
                bias=child.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="meta",
            )
            made.weight = bitsandbytes.nn.Params4bit(
                child.weight.data.cpu(), requires_grad=False, quant_type="nf4"
            )
            made.bias = child.bias
            setattr(module, name, made.to("cuda"))


def drawing() -> dict[str, Any]:
    """Seconds of a picture of 512 x 512, in bfloat16; and how many times faster ours is than Diffusers'."""
    with tempfile.TemporaryDirectory() as folder:
        place = sd_folder(Path(folder))
        found: dict[str, Any] = {}
        for way in ("as it is", "compiled"):
            ours = BridgePipeline.native(place, device="cuda", dtype="bfloat16")
            theirs: Any = diffusers.StableDiffusionPipeline.from_pretrained(
                place, torch_dtype=torch.bfloat16, safety_checker=None
            ).to("cuda")
            theirs.set_progress_bar_config(disable=True)
            if way == "compiled":
                ours.bridge.vision.compile_blocks("inductor")
                theirs.unet.compile_repeated_blocks(fullgraph=True)
            seconds = {
                "lavibridge": timed(partial(ours, "a cat", seed=0, **OPTIONS)),
                "Diffusers": timed(partial(theirs, "a cat", **OPTIONS)),
            }
            found[way] = {**seconds, "times faster": seconds["Diffusers"] / seconds["lavibridge"]}
    return found


def timed(work: Callable[[], object]) -> float:
    """Median seconds of a work that has run once before."""
    work()
    rounds: list[float] = []
    while sum(rounds) < SECONDS["drawing"] and len(rounds) < 10:
        torch.cuda.synchronize()
        begun = perf_counter()
        work()
        torch.cuda.synchronize()
        rounds.append(perf_counter() - begun)
    return median(rounds)


def optimizer_of(bridge: Bridge) -> torch.optim.Optimizer:
    """The run's optimiser, at a rate at which nothing diverges."""
    parts = bridge.trained_parameters()
    return make_optimizer(parts, dict.fromkeys(parts, 1e-5), 1e-2)


def optimizer_bytes(bridge: Bridge) -> int:
    """Bytes of AdamW's moments."""
    return sum(8 * weight.numel() for weight in bridge.parameters() if weight.requires_grad)
