"""Learning rates by part and step, and the moving average."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lavibridge.core.errors import RecipeError
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.training import LearningRates, Training
from lavibridge.training.ema import Ema
from lavibridge.training.optim import make_optimizer, published_rates, scale, set_rates


def test_warm_up_is_real_and_then_constant() -> None:
    settings = Training(steps=20, warmup=4)
    assert [scale(settings, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert scale(Training(steps=5, warmup=0), 0) == 1


def test_the_cosine_falls_to_nothing_by_steps_or_by_clock() -> None:
    settings = Training(steps=104, warmup=4, schedule="cosine")
    assert scale(settings, 4) == pytest.approx(1)
    assert scale(settings, 54) == pytest.approx(0.5)
    assert scale(settings, 103) < 0.001
    assert scale(settings, 10, clock=0.5) == pytest.approx(0.5)
    assert scale(settings, 10, clock=1.7) == pytest.approx(0)
    rates = [scale(settings, step) for step in range(4, 104)]
    assert rates == sorted(rates, reverse=True)


def test_a_warm_up_longer_than_the_run_never_fails() -> None:
    settings = Training(steps=3, warmup=100, schedule="cosine")
    assert [round(scale(settings, step), 3) for step in range(3)] == [0.01, 0.02, 0.03]


def test_rates_not_given_are_the_published_ones() -> None:
    nothing = LearningRates()
    assert published_rates("sd", nothing) == {"language_lora": 5e-6, "connector": 1e-4, "vision_lora": 1e-4}
    assert published_rates("pixart", nothing)["connector"] == 2e-5
    given = published_rates("sd", LearningRates(connector=3e-3, language_lora=0.0))
    assert given == {"language_lora": 0.0, "connector": 3e-3, "vision_lora": 1e-4}


def test_every_part_gets_its_own_rate() -> None:
    parts = {name: {"w": nn.Parameter(torch.ones(2))} for name in ("connector", "vision_lora")}
    optimizer = make_optimizer({**parts, "language_lora": {}}, {"connector": 1.0, "vision_lora": 0.1}, 0.0)
    rates = set_rates(optimizer, Training(steps=8, warmup=2), 0, 0.0)
    assert rates == {"connector": 0.5, "vision_lora": 0.05}
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]


def test_training_nothing_is_an_error() -> None:
    with pytest.raises(RecipeError, match="nothing is trained"):
        make_optimizer({"connector": {}, "language_lora": {}}, {}, 0.0)


def test_the_average_follows_and_forgets_the_start() -> None:
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema([weight], decay=0.9)
    weight.data.fill_(1.0)
    before = ema.average[0].clone()
    ema.update(0)
    assert torch.allclose(ema.average[0], before + 0.9 * (1 - before))  # the decay is 1/10 at first
    for step in range(1, 200):
        ema.update(step)
    assert torch.allclose(ema.average[0], torch.ones(3), atol=1e-6)


def test_the_weights_come_back_even_after_an_error() -> None:
    weight = nn.Parameter(torch.zeros(3))
    ema = Ema([weight], decay=0.9)
    weight.data.fill_(1.0)
    with ema.applied():
        assert torch.equal(weight.detach(), torch.zeros(3))
    assert torch.equal(weight.detach(), torch.ones(3))
    with pytest.raises(RuntimeError), ema.applied():
        raise RuntimeError
    assert torch.equal(weight.detach(), torch.ones(3))
    assert torch.equal(ema.average[0], torch.zeros(3))


def test_a_recipe_keeps_null_rates_null(toy: Callable[..., Recipe]) -> None:
    recipe = toy(training={"steps": 1, "lr": {}})
    assert recipe.training.lr == LearningRates()
