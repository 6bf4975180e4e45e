"""Learning rates by part and step, and the moving average."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lavibridge.bridge import TRAINED_PARTS
from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.core.tensors import save_tensors
from lavibridge.optimizers import adamw8bit
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.sections import read_kind_section
from lavibridge.recipes.training_section import OPTIMIZERS, LearningRateSection, TrainingSection
from lavibridge.training.ema import Ema
from lavibridge.training.optimization import (
    check_learning_rates,
    learning_rate_scale,
    learning_rates,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rates,
)


def test_warm_up_is_real_and_then_constant() -> None:
    settings = TrainingSection(steps=20, warmup=4)
    assert [learning_rate_scale(settings, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learning_rate_scale(TrainingSection(steps=5, warmup=0), 0) == 1


def test_the_cosine_falls_to_nothing_by_steps_or_by_clock() -> None:
    settings = TrainingSection(steps=104, warmup=4, schedule="cosine")
    assert learning_rate_scale(settings, 4) == pytest.approx(1)
    assert learning_rate_scale(settings, 54) == pytest.approx(0.5)
    assert learning_rate_scale(settings, 103) < 0.001
    assert learning_rate_scale(settings, 10, clock=0.5) == pytest.approx(0.5)
    assert learning_rate_scale(settings, 10, clock=1.7) == pytest.approx(0)
    rates = [learning_rate_scale(settings, step) for step in range(4, 104)]
    assert rates == sorted(rates, reverse=True)


def test_a_warm_up_longer_than_the_run_never_fails() -> None:
    settings = TrainingSection(steps=3, warmup=100, schedule="cosine")
    assert [round(learning_rate_scale(settings, step), 3) for step in range(3)] == [0.01, 0.02, 0.03]


def test_rates_not_given_are_the_published_ones_of_the_family() -> None:
    nothing = LearningRateSection()
    published = {"language_lora": 5e-6, "connector": 1e-4, "vision_lora": 1e-4}
    assert learning_rates("sd", nothing, TRAINED_PARTS) == published
    assert learning_rates("pixart", nothing, TRAINED_PARTS)["connector"] == 2e-5
    given = learning_rates("sd", LearningRateSection(connector=3e-3, language_lora=0.0), TRAINED_PARTS)
    assert given == {"language_lora": 0.0, "connector": 3e-3, "vision_lora": 1e-4}


def test_a_family_may_publish_the_rate_of_its_lora_alone() -> None:
    trained, given = ("connector", "vision_lora"), LearningRateSection(connector=1e-4)
    assert learning_rates("qwen_image", given, trained) == {"connector": 1e-4, "vision_lora": 2e-4}
    with pytest.raises(RecipeError, match=r"^training\.lr\.connector: the recipe sets no learning rate"):
        learning_rates("qwen_image", LearningRateSection(), trained)


def test_published_rates_are_those_of_trained_parts() -> None:
    for kind in registry.kinds("vision"):
        assert set(registry.load_kind("vision", kind).published_lr) <= set(TRAINED_PARTS), kind


def test_a_family_without_published_rates_needs_one_for_each_trained_part() -> None:
    with pytest.raises(
        RecipeError, match=r"training\.lr\.vision_lora: the recipe sets no learning rate.*'prx'"
    ):
        learning_rates("prx", LearningRateSection(connector=1e-4), ("connector", "vision_lora"))
    assert learning_rates("prx", LearningRateSection(connector=1e-4), ("connector",)) == {"connector": 1e-4}


def test_an_alignment_alone_needs_no_learning_rate_of_training() -> None:
    sections = {
        "language": {"kind": "llama", "source": "random"},
        "vision": {"kind": "prx", "source": "random"},
        "connector": {"kind": "linear"},
        "data": {"kind": "world", "scenes": 8, "size": 64},
    }
    aligned = make_recipe({**sections, "training": {"steps": 0, "batch": 2, "align": {"batch": 2}}})
    check_learning_rates(aligned)
    trained = make_recipe({**sections, "training": {"steps": 1, "batch": 2, "align": {"batch": 2}}})
    with pytest.raises(RecipeError, match=r"training\.lr\.connector and .*'prx'"):
        check_learning_rates(trained)


def test_every_part_gets_its_own_rate() -> None:
    parts = {name: {"w": nn.Parameter(torch.ones(2))} for name in ("connector", "vision_lora")}
    optimizer = make_optimizer({**parts, "language_lora": {}}, {"connector": 1.0, "vision_lora": 0.1}, 0.0)
    rates = set_learning_rates(optimizer, TrainingSection(steps=8, warmup=2), 0, 0.0)
    assert rates == {"connector": 0.5, "vision_lora": 0.05}
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]


def steps(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], count: int) -> None:
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "muon"])
def test_what_an_optimiser_remembers_can_be_kept_by_name(kind: str, tmp_path: Path) -> None:
    """Four steps, a break, and two more equal six; the parts come back in another order."""
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="8-bit optimisers need the extra `quantize`")

    def begin(order: tuple[str, ...]) -> tuple[dict[str, dict[str, nn.Parameter]], torch.optim.Optimizer]:
        parts = {
            name: {"large": nn.Parameter(torch.ones(80, 80)), "b": nn.Parameter(torch.ones(3))}
            for name in order
        }
        return parts, make_optimizer(
            parts, {"connector": 0.1, "vision_lora": 0.2}, 0.01, read_kind_section(OPTIMIZERS, kind)
        )

    parts, optimizer = begin(("connector", "vision_lora"))
    weights = [weight for name in ("connector", "vision_lora") for weight in parts[name].values()]
    steps(optimizer, weights, 4)
    save_tensors(optimizer_tensors(optimizer, parts), tmp_path / "kept.safetensors")
    later, fresh = begin(("vision_lora", "connector"))
    again = [weight for name in ("connector", "vision_lora") for weight in later[name].values()]
    for weight, other in zip(again, weights, strict=True):
        weight.data.copy_(other.data)
    load_optimizer_tensors(fresh, later, load_file(tmp_path / "kept.safetensors"))
    steps(optimizer, weights, 2)
    steps(fresh, again, 2)
    for weight, other in zip(again, weights, strict=True):
        assert torch.equal(weight, other)
        assert not torch.equal(weight, torch.ones_like(weight))


def test_an_optimiser_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adamw8bit, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"bitsandbytes.*pip install 'lavibridge\[quantize\]'"):
        make_optimizer(
            {"connector": {"w": nn.Parameter(torch.ones(2))}},
            {"connector": 1.0},
            0.0,
            read_kind_section(OPTIMIZERS, "adamw8bit"),
        )


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
    assert recipe.training.lr == LearningRateSection()
