"""What is said once: weights without a gradient, and waiting for data; and nothing where all is well."""

from collections.abc import Callable, Mapping

import pytest
import torch

from lavibridge.bridge import TRAINED_PARTS
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.loop import StepReport, TrainingState, run_training_loop
from lavibridge.training.optimization import learning_rates, make_optimizer
from lavibridge.training.reporting.alerts import (
    ALERT_AFTER_STEPS,
    DATA_WAIT_STEPS,
    DataWaitAlert,
    ZeroGradientAlert,
)

Toy = Callable[..., Recipe]


def run(recipe: Recipe) -> None:
    bridge = build_bridge(recipe)
    parts = bridge.trained_parameters()
    optimizer = make_optimizer(parts, learning_rates("sd", recipe.training.lr, TRAINED_PARTS), 0.01)
    state = TrainingState(bridge=bridge, model=bridge, parts=parts, optimizer=optimizer, ema=None)
    dataset = World(World.Config(scenes=4), RejectedPictures())
    run_training_loop(
        state,
        BatchLoader(dataset, bridge.vision, recipe.training, (16, 16)),
        recipe.training,
        [ZeroGradientAlert(parts)],
    )


def test_lora_above_the_layer_that_is_read_is_named_and_what_learns_is_not(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read below its last block, a language model passes no gradient to the LoRA there."""
    run(
        toy(
            training={"steps": ALERT_AFTER_STEPS + 3, "batch": 1},
            connector={"kind": "linear", "read": {"layer": 1}},
            lora={"language": {"rank": 4, "targets": ["q_proj"]}},
        )
    )
    said = capsys.readouterr().err
    assert said.count("had no gradient") == 1
    assert "weights of language_lora" in said
    assert "layers.1." in said
    assert "layers.0." not in said


@pytest.mark.parametrize("read", ["last", {"layer": 1}])
def test_a_healthy_run_is_told_nothing(read: object, toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    run(toy(training={"steps": ALERT_AFTER_STEPS, "batch": 1}, connector={"kind": "linear", "read": read}))
    assert "gradient" not in capsys.readouterr().err


def report(waited: float, spent: Mapping[str, float]) -> StepReport:
    return StepReport(
        step=1,
        losses=torch.ones(1),
        t=torch.zeros(1, dtype=torch.long),
        gradient_norm={},
        has_gradient={},
        lr={},
        pictures=1,
        seconds=1.0,
        data_wait=waited,
        elapsed=spent,
    )


@pytest.mark.parametrize(
    ("waited", "cause", "told"),
    [
        (0.04, "reading pictures", 0),
        (0.3, "reading pictures", 1),
        (0.3, "encoding pictures", 1),
        (0.3, "language features", 1),
    ],
)
def test_waiting_for_data_is_said_once_with_its_cause(
    toy: Toy, capsys: pytest.CaptureFixture[str], waited: float, cause: str, told: int
) -> None:
    waiting = DataWaitAlert()
    bridge = build_bridge(toy(lora={"language": None, "vision": None}))
    parts = bridge.trained_parameters()
    optimizer = make_optimizer(parts, {"connector": 1.0}, 0.0)
    state = TrainingState(bridge=bridge, model=bridge, parts=parts, optimizer=optimizer, ema=None)
    for _ in range(3 * DATA_WAIT_STEPS):
        waiting(state, report(waited, {"reading pictures": 0.2} | {cause: 0.5}))
    said = capsys.readouterr().err
    assert said.count("waiting for data") == told
    assert (f"most of it for {cause}" in said) == bool(told)
