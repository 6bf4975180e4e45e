"""`training.start`: a run starts from a composed pair or from a saved bridge, and resumes without either."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_folder import rows, same
from toy_pivot import CONFIG, make_pivot

from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.pivot import compose
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.train import train

Toy = Callable[..., Recipe]
NO_LORA = {"language": None, "vision": None}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pivot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pivot of toys."""
    return make_pivot(tmp_path_factory.mktemp("start") / "pivot", "first").folder


@pytest.fixture
def paired(toy: Toy) -> Toy:
    """A toy recipe between the models of a pair."""

    def make(start: dict[str, Any] | None, **sections: dict[str, Any]) -> Recipe:
        given = {
            "language": {"kind": "bert", "max_tokens": None},
            "connector": {"kind": "pivot", **CONFIG},
            **sections,
        }
        given["training"] = {"steps": 2, "start": start, **sections.get("training", {})}
        return toy(**given)

    return make


def first_loss(recipe: Recipe, run: Path) -> float:
    return float(rows(train(recipe, run))[0]["loss"])


@pytest.mark.parametrize("lora", [NO_LORA, {}], ids=["connector only", "LoRA"])
def test_the_first_loss_is_that_of_the_composed_bridge(
    pivot: Path,
    paired: Toy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora: dict[str, Any],
) -> None:
    compose(pivot, "bert", "sd").save_pretrained(tmp_path / "composed")
    found = [
        first_loss(paired(start, lora=lora), tmp_path / f"run-{number}")
        for number, start in enumerate(({"pivot": str(pivot)}, {"bridge": str(tmp_path / "composed")}, None))
    ]
    monkeypatch.setattr(
        "lavibridge.training.assemble.build_bridge", lambda *_, **__: compose(pivot, "bert", "sd")
    )
    expected = first_loss(paired(None, lora=NO_LORA), tmp_path / "composed run")
    assert found[:2] == [expected, expected]
    assert found[2] != expected


def test_a_run_that_resumes_has_no_need_of_its_start(pivot: Path, paired: Toy, tmp_path: Path) -> None:
    place = shutil.copytree(pivot, tmp_path / "pivot")
    start = {"pivot": str(place)}

    def steps(count: int) -> dict[str, int]:
        return {"steps": count, "checkpoint_every": 2}

    straight = train(paired(start, training=steps(4)), tmp_path / "straight")
    broken = train(paired(start, training=steps(2)), tmp_path / "broken")
    shutil.rmtree(place)
    train(paired(start, training=steps(4)), broken, resume=True)
    assert same(straight / "checkpoints/step-4", broken / "checkpoints/step-4")
    assert [row["loss"] for row in rows(straight)] == [row["loss"] for row in rows(broken)]


def test_training_continues_the_connector_and_the_lora_of_a_run(toy: Toy, tmp_path: Path) -> None:
    first = train(toy(training={"steps": 2}), tmp_path / "first")
    still = {"language_lora": 0.0, "connector": 0.0, "vision_lora": 0.0}
    training = {"steps": 1, "lr": still, "start": {"bridge": str(first)}}
    second = train(toy(training=training), tmp_path / "second")
    assert same(first / "checkpoints/step-2/ema", second / "checkpoints/step-1/bridge")


def test_a_start_that_does_not_fit_is_refused(pivot: Path, paired: Toy, toy: Toy, tmp_path: Path) -> None:
    compose(pivot, "bert", "sd").save_pretrained(tmp_path / "composed")
    run = train(toy(training={"steps": 1}), tmp_path / "run")
    halves, composed = {"pivot": str(pivot)}, {"bridge": str(tmp_path / "composed")}
    llama = {"kind": "llama", "source": "random", "max_tokens": None}
    for recipe, message in (
        (toy(training={"start": halves}), r"starts from two halves, and the connector is 'lavi'"),
        (paired({"pivot": str(tmp_path)}), r"training\.start\.pivot: .* is not a pivot"),
        (paired({"bridge": str(tmp_path)}), r"training\.start\.bridge: .* holds neither"),
        (
            paired(halves, connector={"kind": "pivot", **CONFIG, "latents": 4}),
            r"vision half 'sd' .* has other options .*: latents 3 and not 4",
        ),
        (
            paired(composed, connector={"kind": "pivot", **CONFIG, "latents": 4}),
            r"connector of training\.start\.bridge has other options .*: latents 3 and not 4",
        ),
        (paired(halves, language={"kind": "clip", "max_tokens": None}), r"no language half for the model"),
        (paired(composed, language=llama), r"language model of training\.start\.bridge is bert 'random'"),
        (
            toy(training={"start": {"bridge": str(run)}}, lora={"vision": None}),
            r"vision model of training\.start\.bridge has LoRA with other settings .*rank 4 and not None",
        ),
        (
            toy(
                training={"start": {"bridge": str(run)}, "teacher": {"guidance": 3.0}},
                vision={"source": "mini-sd"},
            ),
            r"distilled guidance None, and the recipe distils 3\.0",
        ),
    ):
        with pytest.raises(LaviError, match=message):
            train(recipe, tmp_path / "refused")
    for start in ({}, {**halves, **composed}):
        with pytest.raises(RecipeError, match=r"training\.start: name either `bridge` or `pivot`"):
            paired(start)
