"""One step: the gradient is the batch's, it is clipped and averaged, and nothing that is not finite moves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lavibridge.bridge import TRAINED_PARTS
from lavibridge.core.errors import NotFiniteError
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.ema import Ema
from lavibridge.training.loop import (
    EverySteps,
    StepReport,
    TrainingState,
    run_training_loop,
    take_training_step,
    training_mode,
)
from lavibridge.training.nonfinite import nonfinite_samples
from lavibridge.training.optimization import learning_rates, make_optimizer, optimizer_tensors
from lavibridge.training.reporting.step_metrics import loss_metrics_by_time

Toy = Callable[..., Recipe]
STILL: dict[str, Any] = {"rank": 4, "dropout": 0.0}


def begin(recipe: Recipe) -> tuple[TrainingState, BatchLoader]:
    bridge = build_bridge(recipe)
    parts = bridge.trained_parameters()
    weights = [parameter for part in parts.values() for parameter in part.values()]
    state = TrainingState(
        bridge=bridge,
        model=bridge,
        parts=parts,
        optimizer=make_optimizer(parts, learning_rates("sd", recipe.training.lr, TRAINED_PARTS), 0.01),
        ema=Ema(weights, 0.9),
    )
    dataset = World(World.Config(scenes=10), RejectedPictures())
    training_mode(bridge)
    return state, BatchLoader(dataset, bridge.vision, recipe.training, (16, 16))


def snapshot(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in state.bridge.state_dict().items()}


def test_only_trained_weights_move_and_all_parts_of_them(toy: Toy) -> None:
    recipe = toy()
    state, batches = begin(recipe)
    before = snapshot(state)
    for _ in range(2):  # at the first step only LoRA's up-projections have a gradient
        report = take_training_step(state, batches, recipe.training, 0.0)
    moved = {name for name, value in snapshot(state).items() if not torch.equal(value, before[name])}
    assert all("lora_" in name or name.startswith("connector.") for name in moved)
    for part, norm in report.gradient_norm.items():
        assert norm > 0, part
    assert {"language", "connector", "vision"} == {name.split(".")[0] for name in moved}
    assert any("lora_A" in name for name in moved)
    assert any("lora_B" in name for name in moved)


def test_accumulated_passes_make_the_same_step_as_one_batch(toy: Toy) -> None:
    lora = {"language": STILL, "vision": STILL}
    connector = {"dropout": 0.0}
    reports = []
    for training in ({"batch": 4}, {"batch": 2, "accumulate": 2}):
        recipe = toy(training=training, lora=lora, connector=connector)
        state, batches = begin(recipe)
        reports.append(take_training_step(state, batches, recipe.training, 0.0))
    torch.testing.assert_close(reports[0].losses, reports[1].losses, rtol=1e-3, atol=1e-4)
    for part, norm in reports[0].gradient_norm.items():
        assert reports[1].gradient_norm[part] == pytest.approx(norm, rel=1e-2)


def test_dropout_is_on_in_what_is_trained_and_off_in_what_is_frozen(toy: Toy) -> None:
    state, _ = begin(toy(language={"kind": "t5"}))
    assert all(module.training for module in state.bridge.connector.modules())
    on = {n for n, m in state.bridge.named_modules() if m.training and not n.startswith("connector")}
    assert on
    assert all("lora_dropout" in name.split(".") for name in on)


def test_the_gradient_is_clipped_to_the_asked_length(toy: Toy) -> None:
    recipe = toy(training={"clip": 1e-4})
    state, batches = begin(recipe)
    lengths: list[float] = []
    step = state.optimizer.step

    def measured(*arguments: Any) -> Any:
        grads = [p.grad for part in state.parts.values() for p in part.values() if p.grad is not None]
        lengths.append(float(torch.nn.utils.get_total_norm(grads)))
        return step(*arguments)

    state.optimizer.step = measured  # type: ignore[method-assign, assignment]
    report = take_training_step(state, batches, recipe.training, 0.0)
    assert lengths == [pytest.approx(1e-4, rel=1e-2)]
    assert max(report.gradient_norm.values()) > 1e-3  # what is reported is the length before clipping


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_sample_and_moves_nothing(toy: Toy, value: float) -> None:
    recipe = toy(training={"batch": 4, "max_skips": 0})
    state, batches = begin(recipe)
    expected = batches.draw(0, 0).batch.names
    bad, _ = batches.visits.at(range(2, 3))[0]
    latents = batches.caches.latents
    entry = latents.backend.get(latents.names(bad))
    assert entry is not None
    entry["moments"].fill_(value)
    before = snapshot(state)
    averages = [each.clone() for each in state.ema.average] if state.ema else []
    with pytest.raises(NotFiniteError, match=f"step 1: the loss or .* not finite .*{expected[2]}") as caught:
        take_training_step(state, batches, recipe.training, 0.0)
    assert caught.value.names == (expected[2],)
    assert all(torch.equal(value, before[name]) for name, value in snapshot(state).items())
    assert state.ema is not None
    assert all(torch.equal(a, b) for a, b in zip(averages, state.ema.average, strict=True))
    assert state.step == 0
    assert not state.optimizer.state


def test_a_gradient_that_is_not_finite_stops_too(toy: Toy) -> None:
    recipe = toy(training={"max_skips": 0})
    state, batches = begin(recipe)
    weight = next(iter(state.parts["connector"].values()))
    weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NotFiniteError, match="the gradient is not finite") as caught:
        take_training_step(state, batches, recipe.training, 0.0)
    assert caught.value.names == batches.draw(0, 0).batch.names


def spoil(state: TrainingState, steps: set[int]) -> None:
    """Have the gradient be NaN at some steps, counted from 0."""
    weight = next(iter(state.parts["connector"].values()))
    weight.register_hook(lambda grad: grad * float("nan") if state.step in steps else grad)


def test_a_skipped_step_is_counted_and_moves_nothing(toy: Toy) -> None:
    recipe = toy()
    state, batches = begin(recipe)
    spoil(state, {1})
    take_training_step(state, batches, recipe.training, 0.0)
    before = snapshot(state)
    kept = optimizer_tensors(state.optimizer, state.parts)
    assert state.ema is not None
    averages = [each.clone() for each in state.ema.average]
    report = take_training_step(state, batches, recipe.training, 0.0)
    names = batches.draw(1, 0).batch.names
    assert report.skipped == names
    assert state.skips.samples == {2: names}
    assert (report.step, state.step) == (2, 2)
    assert all(torch.equal(value, before[name]) for name, value in snapshot(state).items())
    assert all(torch.equal(a, b) for a, b in zip(averages, state.ema.average, strict=True))
    again = optimizer_tensors(state.optimizer, state.parts)
    assert all(torch.equal(value, kept[name]) for name, value in again.items())
    after = take_training_step(state, batches, recipe.training, 0.0)
    assert not after.skipped
    assert any(not torch.equal(value, before[name]) for name, value in snapshot(state).items())


@pytest.mark.parametrize(
    ("most", "spoilt", "end", "why"),
    [
        (10, {1, 3, 4, 5, 6}, 6, "like the 2 steps before it"),
        (2, {0, 2, 4}, 5, "a run may skip at most 2 steps"),
    ],
)
def test_too_many_skips_end_the_run_and_name_all_samples(
    toy: Toy, most: int, spoilt: set[int], end: int, why: str
) -> None:
    recipe = toy(training={"steps": 9, "max_skips": most})
    state, batches = begin(recipe)
    spoil(state, spoilt)
    with pytest.raises(NotFiniteError, match=f"step {end}: .*{why}") as caught:
        run_training_loop(state, batches, recipe.training, [])
    assert state.step == end - 1
    met = {name for step in spoilt if step < end for name in batches.draw(step, 0).batch.names}
    assert set(caught.value.names) == met


def test_samples_to_blame_are_found_in_every_process_and_pass(toy: Toy) -> None:
    """Of two processes with two passes each, one has a sample that the other cannot see."""
    recipe = toy(training={"batch": 2, "accumulate": 2})
    state, _ = begin(recipe)
    dataset = World(World.Config(scenes=30), RejectedPictures())
    both = [
        BatchLoader(dataset, state.bridge.vision, recipe.training, (16, 16), rank, 2) for rank in range(2)
    ]
    losses = [torch.ones(4), torch.tensor([1.0, 1.0, float("nan"), 1.0])]
    expected = both[1].draw(3, 1).batch.names[0]
    for own, batches in zip(losses, both, strict=True):
        found = nonfinite_samples(
            own,
            torch.tensor(float("nan")),
            3,
            batches,
            any_process=lambda value: True,
            gather=lambda flags: torch.isfinite(torch.cat(losses)),
        )
        assert found == (expected,)


def test_events_come_when_they_should_and_can_stop_the_loop(toy: Toy) -> None:
    recipe = toy(training={"steps": 9})
    state, batches = begin(recipe)
    seen: list[int] = []
    never: list[int] = []

    def stop(state: TrainingState, report: StepReport) -> None:
        state.stop = "enough" if report.step == 5 else ""

    events = [
        EverySteps(2, lambda state, report: seen.append(report.step)),
        EverySteps(0, lambda state, report: never.append(report.step)),
        stop,
    ]
    run_training_loop(state, batches, recipe.training, events)
    assert seen == [2, 4]
    assert not never
    assert state.step == 5


def test_the_clock_ends_training(toy: Toy) -> None:
    recipe = toy(training={"steps": 100_000, "max_minutes": 0.005, "schedule": "cosine"})
    state, batches = begin(recipe)
    rates: list[float] = []
    run_training_loop(
        state, batches, recipe.training, [lambda state, report: rates.append(report.lr["connector"])]
    )
    assert 1 <= state.step < 100_000
    assert state.stop
    assert state.seconds >= 0.3


def test_loss_falls_on_the_same_samples(toy: Toy) -> None:
    still = {"language": STILL, "vision": STILL}
    recipe = toy(
        training={"steps": 25, "batch": 8, "lr": {"connector": 3e-3, "vision_lora": 3e-3}}, lora=still
    )
    state, batches = begin(recipe)
    draw = batches.draw(0, 0)

    def loss() -> float:
        state.bridge.eval()
        with torch.no_grad():
            return float(state.bridge(draw.batch, draw.t, draw.noise).mean())

    before = loss()
    run_training_loop(state, batches, recipe.training, [])
    assert loss() < 0.97 * before


def test_loss_by_time_has_ten_bins() -> None:
    bins = loss_metrics_by_time(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 99, 999]), 1000)
    assert bins == [2.0, *[None] * 8, 5.0]
    assert loss_metrics_by_time(torch.tensor([4.0]), torch.tensor([100]), 1000)[1] == 4.0
