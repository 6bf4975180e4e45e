"""Measures the parts of a training step, and compares it with the published training step.

    python benchmarks/train_step.py      on the processor, a small pair at the published proportions

`true_size.py` measures the published pairs at their true shapes.

The published way (training scripts of Zhao et al. 2024, arXiv 2403.07860) computes in float32, encodes every
image in every step, pads captions to 77 unmasked tokens, has dropout in LoRA and adapter, and an AdamW that
loops over tensors. Each variant changes one thing; lavibridge's own way is `fused AdamW`, and the variants
after it are not used. All variants take turns in each round, in several processes one after the other. A
ratio is the median over processes with a 95 % bootstrap interval; the value of a process is the median over
its rounds. Weights are random, which does not affect time.
"""

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from published import pair
from record import record
from spread import PROCESSES, across, fresh

from lavibridge import Bridge
from lavibridge.core.contracts import Batch
from lavibridge.core.device import cpu_computes_bfloat16, set_threads
from lavibridge.lora import LoraSettings
from lavibridge.plan.metered_passes import encoding_pass, training_pass
from lavibridge.recipes.recipe import load_recipe
from lavibridge.training.ema import Ema
from lavibridge.training.loop import training_mode
from lavibridge.training.train import train

Laps = dict[str, tuple[float, float]]
BATCH, SIZE, ROUNDS, CURVE = 2, 128, 4, 8
SMALL: Mapping[str, Mapping[str, Any]] = {
    "language": {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 6, "num_heads": 8},
    "vision": {
        "sample_size": 16,
        "block_out_channels": (64, 128, 256, 256),
        "cross_attention_dim": 256,
        "attention_head_dim": 8,
    },
    "autoencoder": {
        "block_out_channels": (28, 56, 112, 112),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "norm_num_groups": 14,
        "latent_channels": 4,
        "sample_size": SIZE,
    },
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """The settings of a step; the defaults are lavibridge's."""

    is_encoding: bool = False
    sees_padding: bool = False
    dropout: float = 0.0
    is_fused: bool = True
    channels_last: bool = False
    bfloat16: bool = False


PUBLISHED = Way(is_encoding=True, sees_padding=True, dropout=0.1, is_fused=False)
LADDER = {
    "published": PUBLISHED,
    "latents cached": Way(sees_padding=True, dropout=0.1, is_fused=False),
    "no dropout": Way(sees_padding=True, is_fused=False),
    "masks, cut to the longest": Way(is_fused=False),
    "fused AdamW": Way(),
    "channels last": Way(channels_last=True),
    **({"bfloat16": Way(bfloat16=True)} if cpu_computes_bfloat16() else {}),
}


class Stepper:
    """One bridge and its optimiser, stepping one way."""

    def __init__(self, way: Way, rank: int = 8) -> None:
        self.way = way
        torch.manual_seed(0)
        lora = LoraSettings(rank=rank, dropout=way.dropout)
        self.bridge = Bridge.compose(
            *pair("t5", "sd", SMALL, {"see_padding": way.sees_padding, "max_tokens": 77}),
            {"kind": "lavi", "dropout": way.dropout},
            lora,
            lora,
        )
        if not way.channels_last:
            self.bridge.vision.backbone.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        training_mode(self.bridge)
        self.weights = [each for part in self.bridge.trained_parameters().values() for each in part.values()]
        kind: dict[str, Any] = {"fused": True} if way.is_fused else {"fused": False, "foreach": False}
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4, weight_decay=1e-2, **kind)
        self.ema = None if way is PUBLISHED else Ema(self.weights, 0.999)
        self.seconds: Laps = {}

    def step(self, number: int) -> float:
        """Step ``number`` on its own batch; its loss."""
        images, prompts, t, noise, moments = sample(number)
        bridge, clock = self.bridge, Clock()
        with torch.no_grad():
            mean, std = bridge.vision.encode_moments(images) if self.way.is_encoding else moments
            latents = mean + std * noise[1]
        clock.lap("autoencoder")
        with torch.autocast("cpu", torch.bfloat16, enabled=self.way.bfloat16):
            features = bridge.features(prompts)
            clock.lap("language model")
            batch = Batch(prompts=prompts, names=prompts, latents=latents, features=features)
            loss = bridge(batch, t, noise[0]).mean()
        clock.lap("connector and denoiser, forward")
        loss.backward()
        clock.lap("backward")
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        clock.lap("clipping and optimiser")
        if self.ema is not None:
            self.ema.update(number)
        clock.lap("average")
        self.seconds = clock.laps
        return float(loss.detach())


class Clock:
    """Time between laps: wall time, and processor time, which other programs hardly disturb."""

    def __init__(self) -> None:
        self.laps: dict[str, tuple[float, float]] = {}
        self.last = (perf_counter(), process_time())

    def lap(self, name: str) -> None:
        """Attribute the time since the last lap to ``name``."""
        now = (perf_counter(), process_time())
        self.laps[name] = (now[0] - self.last[0], now[1] - self.last[1])
        self.last = now


def sample(number: int) -> tuple[Any, ...]:
    """Pictures, captions of 9 to 22 tokens, times, noise and latents' moments of a step."""
    chance = random.Random(number)
    torch.manual_seed(number)
    images = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1
    prompts = tuple("a" * chance.randint(8, 21) for _ in range(BATCH))
    t = torch.randint(0, 1000, (BATCH,))
    noise = torch.randn(2, BATCH, 4, SIZE // 8, SIZE // 8)
    return images, prompts, t, noise, (noise[1], torch.ones_like(noise[1]))


def ladder() -> dict[str, Any]:
    """Return each variant's ratio to the published way, and the parts of the first and the last."""
    set_threads()
    steppers = {name: Stepper(way) for name, way in LADDER.items()}
    for stepper in steppers.values():
        stepper.step(0)
    times: dict[str, list[Laps]] = {name: [] for name in steppers}
    for number in range(1, ROUNDS + 1):
        for name, stepper in steppers.items():
            stepper.step(number)
            times[name].append(stepper.seconds)
        print(f"round {number} of {ROUNDS}", file=sys.stderr)
    return {
        "seconds": compared(times, 0),
        "processor seconds": compared(times, 1),
        "parts, processor seconds": {
            name: {part: statistics.median(each[part][1] for each in times[name]) for part in times[name][0]}
            for name in ("published", "fused AdamW")
        },
    }


def compared(times: Mapping[str, list[Laps]], clock: int) -> dict[str, Any]:
    """Return each variant's time by one of the clocks, and its speed-up over the published way."""
    total = {
        name: [sum(lap[clock] for lap in each.values()) for each in rounds] for name, rounds in times.items()
    }
    return {
        "a step": {name: statistics.median(values) for name, values in total.items()},
        "times faster": {
            name: statistics.median([a / b for a, b in zip(total["published"], values, strict=True)])
            for name, values in total.items()
        },
    }


def proportions() -> dict[str, float]:
    """Return the autoencoder's share of the published step's arithmetic, here and at true size."""
    recipe = load_recipe("t5-large_sd14_lavi", ["training.precision=float32", f"data.size={SIZE}"])
    with torch.device("meta"):
        bridge = Stepper(PUBLISHED).bridge.to("meta")
    encoding = encoding_pass(bridge, recipe, 1).flops()
    here = encoding / (encoding + training_pass(bridge, recipe, 1, None, "cpu").flops())
    return {"here": here, "T5-Large into Stable Diffusion 1.4": 0.36}


def curves() -> dict[str, Any]:
    """Compare losses that differ by the order of computation only, and by bfloat16, with its time."""
    fast, slow = Stepper(Way(channels_last=True)), Stepper(Way(is_fused=False))
    losses = [(fast.step(number), slow.step(number)) for number in range(CURVE)]
    half = Stepper(Way(bfloat16=True))
    begun = process_time()
    rounded = half.step(0)
    return {
        "fast": [each[0] for each in losses],
        "largest relative difference": max(abs(a - b) / b for a, b in losses),
        "of bfloat16, in the first step": abs(rounded - losses[0][0]) / losses[0][0],
        "processor seconds of a step in bfloat16": process_time() - begun,
        "n": CURVE,
    }


def waiting() -> dict[str, float]:
    """Return the share of step time spent waiting for data, from a run's log: 160 scenes, 8 at a time."""
    settings = ["training.steps=60", "training.batch=8", "data.scenes=160", "training.checkpoint_every=0"]
    recipe = load_recipe("quickstart", [*settings, "training.align=null", "training.max_minutes=null"])
    with tempfile.TemporaryDirectory() as folder:
        log = train(recipe, Path(folder) / "run") / "log.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()]
    shares = [row["data_wait"] for row in rows if "data_wait" in row]
    first, rest = shares[1:20], shares[20:]
    return {"while encoding": statistics.mean(first), "afterwards": statistics.mean(rest), "n": len(rest)}


def main() -> None:
    """Measure and record."""
    threads = set_threads()
    result = {
        "batch": BATCH,
        "threads": threads,
        "autoencoder's share": proportions(),
        "waiting for data": waiting(),
        **across([fresh(ladder) for _ in range(PROCESSES)]),
        "losses": curves(),
    }
    record("train_step", result)


if __name__ == "__main__":
    main()
