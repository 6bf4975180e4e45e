"""Adding an image encoder: the half learns the slots of its pictures' captions, the same way each time."""

from pathlib import Path

import pytest
import torch
from toy_pivot import make_pivot

from lavibridge.core.errors import DataError, RecipeError
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import read_half
from lavibridge.recipes.recipe import Recipe, dump_recipe, load_recipe
from lavibridge.training.pivot.image_regression import add_image_encoder
from lavibridge.training.pivot.recipes import added_recipe

SHORT = ["data.scenes=96", "data.mix={one: 1}", "training.align.batch=16", "training.align.measure_every=10"]


@pytest.fixture(scope="module")
def pivot(tmp_path_factory: pytest.TempPathFactory) -> PivotFolder:
    """A pivot of toys with a recipe."""
    made = make_pivot(tmp_path_factory.mktemp("pivot") / "pivot", "first")
    space = ["connector.slots=5", "connector.width=8", "connector.language_heads=2", "connector.latents=3"]
    toys = ["language={kind: llama, source: random}", "vision={kind: sd, source: random}"]
    recipe = load_recipe("mini-llama_mini-sd_pivot", [*space, *toys, "connector.read=null"])
    (made.folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return made


def recipe_of(pivot: PivotFolder, *settings: str) -> Recipe:
    return added_recipe(pivot, "image_encoder", "mini-clip", [*SHORT, *settings], None)


@pytest.mark.usefixtures("one_thread")
def test_the_half_learns_and_learns_the_same_again(pivot: PivotFolder) -> None:
    for name, steps in (("untrained", 1), ("once", 40), ("again", 40)):
        add_image_encoder(pivot, recipe_of(pivot, f"training.align.steps={steps}"), "mini-clip", name)
    untrained, once, again = (
        read_half(pivot, "image_encoder", name) for name in ("untrained", "once", "again")
    )
    assert once.description.learning.held_out == 9
    assert once.description.learning.captions == 87
    fvu = [each.description.learning.fvu for each in (untrained, once)]
    assert fvu[0] is not None
    assert fvu[1] is not None
    assert fvu[1] < 0.9 * fvu[0]
    assert all(torch.equal(once.weights[name], again.weights[name]) for name in once.weights)
    assert once.description.tokenizer is None
    assert once.description.spec == {"width": 128, "layers": 4}


def test_data_without_pictures_and_another_space_are_refused(pivot: PivotFolder, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("a red circle\na blue square\n")
    with pytest.raises(DataError, match="choose data with pictures"):
        add_image_encoder(
            pivot,
            added_recipe(pivot, "image_encoder", "mini-clip", [], captions),
            "mini-clip",
            "none",
        )
    with pytest.raises(RecipeError, match=r"connector\.slots is 6, but every half"):
        recipe_of(pivot, "connector.slots=6")
