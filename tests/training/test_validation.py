"""Held-out pictures are never trained on and never change sides; their loss depends on the weights alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lavibridge.bridge import TRAINED_PARTS
from lavibridge.core.errors import DataError, RunError
from lavibridge.data.base import DatasetPart
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.training_section import ValidationSection
from lavibridge.report.curves import make_curves
from lavibridge.report.run_record import read_run
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.data.held_out import HeldOutSubset, held_out_position, hold_out
from lavibridge.training.ema import Ema
from lavibridge.training.loop import TrainingState, training_mode
from lavibridge.training.optimization import learning_rates, make_optimizer
from lavibridge.training.train import train
from lavibridge.training.validation import Validator

Toy = Callable[..., Recipe]
VALIDATION = {"every": 2, "share": 0.3, "pictures": 3, "times": 2}


def world(scenes: int = 30) -> World:
    return World(World.Config(scenes=scenes), RejectedPictures())


def names(dataset: World | HeldOutSubset) -> set[str]:
    return {dataset.sample(index).name for index in range(len(dataset))}


def split(scenes: int, share: float) -> tuple[HeldOutSubset, HeldOutSubset]:
    kept, held = hold_out(world(scenes), ValidationSection(share=share))
    assert isinstance(kept, HeldOutSubset)
    assert isinstance(held, HeldOutSubset)
    return kept, held


def test_every_picture_is_on_one_side_and_stays_there() -> None:
    kept, held = split(200, 0.2)
    assert names(kept) | names(held) == names(world(200))
    assert not names(kept) & names(held)
    assert 0.1 < len(held) / 200 < 0.3
    assert names(held) < names(split(300, 0.2)[1])  # the data grows
    assert names(held) < names(split(200, 0.4)[1])
    order = [held_out_position(held.sample(index).name) for index in range(len(held))]
    assert order == sorted(order)


def test_a_part_of_a_dataset_says_of_its_pictures_what_the_whole_says() -> None:
    whole = world(10)
    some = HeldOutSubset(whole, np.array([7, 2]), "two of them")
    assert [some.sample(index).name for index in range(2)] == ["scene-000007", "scene-000002"]
    assert np.array_equal(some.picture(1, (16, 16)), whole.picture(2, (16, 16)))
    assert some.content(0) == whole.content(7)
    assert np.array_equal(some.sizes(), whole.sizes()[[7, 2]])
    assert some.fingerprint() != whole.fingerprint()


def test_the_weights_of_a_mixture_go_with_what_is_left_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world(10)
    parts = (
        DatasetPart(count=4, weight=1.0),
        DatasetPart(count=2, weight=2.0),
        DatasetPart(count=4, weight=3.0),
    )
    monkeypatch.setattr(World, "parts", lambda self: parts)
    left = HeldOutSubset(whole, np.array([0, 3, 6, 7, 9]), "five")
    assert left.parts() == (DatasetPart(count=2, weight=1.0), DatasetPart(count=3, weight=3.0))


@pytest.mark.parametrize(("share", "side"), [(1e-9, "held out"), (0.999999, "trained on")])
def test_an_empty_side_is_an_error(share: float, side: str) -> None:
    with pytest.raises(DataError, match=f"none of 30 pictures would be {side}"):
        hold_out(world(), ValidationSection(share=share))


def begin(recipe: Recipe) -> TrainingState:
    bridge = build_bridge(recipe)
    parts = bridge.trained_parameters()
    weights = [parameter for part in parts.values() for parameter in part.values()]
    optimizer = make_optimizer(parts, learning_rates("sd", recipe.training.lr, TRAINED_PARTS), 0.01)
    training_mode(bridge)
    return TrainingState(bridge=bridge, model=bridge, parts=parts, optimizer=optimizer, ema=Ema(weights, 0.9))


def test_measuring_is_repeatable_and_leaves_no_trace(toy: Toy) -> None:
    recipe = toy(training={"validation": VALIDATION})
    state = begin(recipe)
    held = split(30, 0.3)[1]
    validator = Validator(held, state.bridge.vision, recipe.training, (16, 16))
    before = {name: value.clone() for name, value in state.bridge.state_dict().items()}
    modes = [module.training for module in state.bridge.modules()]
    first, second = validator.measure(state)["validation"], validator.measure(state)["validation"]
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["pictures"] == 3
    assert len(first["loss_by_time"]) == 2
    assert first["loss"] == pytest.approx(np.mean(first["loss_by_time"]))
    assert first["ema"]["loss"] == first["loss"] == state.validation  # nothing has moved yet
    assert [module.training for module in state.bridge.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in state.bridge.state_dict().items())
    with torch.no_grad():
        for weight in state.parts["connector"].values():
            weight.mul_(1.5)
    moved = validator.measure(state)["validation"]
    assert moved["loss"] != first["loss"]
    assert moved["ema"]["loss"] == first["loss"]


def test_two_processes_measure_what_one_does(toy: Toy) -> None:
    recipe = toy(training={"validation": {**VALIDATION, "times": 3}})
    state = begin(recipe)
    state.bridge.eval()
    held = split(30, 0.3)[1]
    one = Validator(held, state.bridge.vision, recipe.training, (16, 16)).losses(state)
    found: list[Tensor] = []

    def gather(values: Tensor) -> Tensor:
        found.append(values)
        return torch.cat([found[0], found[-1]])

    state.gather = gather
    for process in range(2):
        both = Validator(held, state.bridge.vision, recipe.training, (16, 16), process, 2).losses(state)
    torch.testing.assert_close(both, one, rtol=1e-5, atol=1e-6)


def test_a_run_measures_before_between_and_never_trains_on_what_it_measures(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: set[str] = set()
    plain = BatchLoader.draw

    def noted(self: BatchLoader, step: int, turn: int) -> object:
        draw = plain(self, step, turn)
        met.update(draw.batch.names)
        return draw

    monkeypatch.setattr(BatchLoader, "draw", noted)
    recipe = toy(training={"steps": 4, "batch": 4, "validation": VALIDATION})
    run = train(recipe, tmp_path / "run")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation" in row] == [0, 2, 4]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    record = read_run(run)
    assert [row["step"] for row in record.rows] == [1, 2, 3, 4]
    assert "Held-out loss" in [chart["title"] for chart in make_curves([record])]
    assert met
    held = {name for name in names(world(10)) if held_out_position(name) < 0.3}
    assert held
    assert not met & held
    other = toy(training={"steps": 5, "batch": 4, "validation": {**VALIDATION, "share": 0.5}})
    with pytest.raises(RunError):
        train(other, run, resume=True)
