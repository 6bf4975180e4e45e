"""The first losses of three toy runs, to five digits: what a refactoring must leave as it is.

A change that is meant to change them is explained in LOG.md, with the old numbers and the new ones; then
`golden_losses.json` is written anew from what this test says it found.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from lavibridge.bridge import TRAINED_PARTS
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.recipes.recipe import make_recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.loop import TrainingState, run_training_loop
from lavibridge.training.optimization import learning_rates, make_optimizer

GOLDEN: dict[str, list[float]] = json.loads(Path(__file__).with_name("golden_losses.json").read_text())
LORA = {"language": {"rank": 4}, "vision": {"rank": 4}}
PAIRS: dict[str, dict[str, Any]] = {
    "llama_sd_lavi": {
        "language": {"kind": "llama", "source": "random", "max_tokens": 24},
        "vision": {"kind": "sd", "source": "random"},
        "connector": {"kind": "lavi"},
        "lora": LORA,
    },
    "t5_sd_ella": {
        "language": {"kind": "t5", "source": "random", "max_tokens": 24},
        "vision": {"kind": "sd", "source": "random"},
        "connector": {"kind": "ella", "latents": 8, "blocks": 2},
        "lora": {"language": None, "vision": None},
    },
    "llama_pixart_llmdiff": {
        "language": {"kind": "llama", "source": "random", "max_tokens": 24},
        "vision": {"kind": "pixart", "source": "random"},
        "connector": {"kind": "llmdiff"},
        "lora": LORA,
    },
}
TRAINING = {
    "steps": 5,
    "batch": 4,
    "warmup": 2,
    "device": "cpu",
    "weighting": "min_snr",
    "lr": {"language_lora": 1e-3, "connector": 1e-3, "vision_lora": 1e-3},
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_losses_are_what_they_were(name: str) -> None:
    pair = PAIRS[name]
    data = {"kind": "world", "scenes": 12, "size": 16}
    recipe = make_recipe({**pair, "data": data, "training": TRAINING})
    bridge = build_bridge(recipe)
    parts = bridge.trained_parameters()
    rates = learning_rates(pair["vision"]["kind"], recipe.training.lr, TRAINED_PARTS)
    state = TrainingState(
        bridge=bridge, model=bridge, parts=parts, optimizer=make_optimizer(parts, rates, 0.01), ema=None
    )
    batches = BatchLoader(
        World(World.Config(scenes=12), RejectedPictures()), bridge.vision, recipe.training, (16, 16)
    )
    losses: list[float] = []
    run_training_loop(
        state, batches, recipe.training, [lambda state, report: losses.append(float(report.losses.mean()))]
    )
    assert losses == pytest.approx(GOLDEN[name], rel=1e-5), losses
