"""Study files: what is wrong is named, grids multiply, and every shipped study holds together."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.config import validate_config
from lavibridge.core.errors import RecipeError
from lavibridge.core.packaged import PACKAGED
from lavibridge.recipes.recipe_text import change_recipe_text
from lavibridge.study.cells import cell_setting, choose_cells, expand_cells, load_study
from lavibridge.study.shipped import shipped_studies
from lavibridge.study.study import Study
from lavibridge.training.start_checks import check_start

NAMES = st.lists(
    st.from_regex(r"[a-z0-9][a-z0-9.-]{0,5}", fullmatch=True), min_size=1, max_size=4, unique=True
)
PAPER = ("Short-FID", "Short-CLIP", "Long-CLIP")
COMP = ("Comp-Color", "Comp-Shape", "Comp-Texture", "Comp-Spatial", "Comp-Non-spatial", "Comp-Complex")
OF_TRAINING = ("world-ideas", "world-align")
"""They ask how to train, so that they have no paper's rows."""
ELEVEN = {*PAPER, *COMP, "Short-Aesthetics", "Long-Aesthetics"}


def study(**fields: Any) -> Study:
    content = {
        "name": "s",
        "question": "?",
        "recipe": "quickstart",
        "suites": {"world": {"suite": "world"}},
        "rows": [{"name": "All", "suite": "world"}],
    }
    return validate_config(Study, {**content, **fields}, "study.yaml")


@settings(deadline=None, max_examples=30)
@given(axes=st.dictionaries(st.sampled_from(["a", "b", "c"]), NAMES, min_size=1))
def test_axes_multiply_in_order_and_every_name_is_one_cell(axes: dict[str, list[str]]) -> None:
    grid = study(axes={axis: [{"name": name} for name in names] for axis, names in axes.items()}).grid()
    count = 1
    for names in axes.values():
        count *= len(names)
    assert len({condition.name for condition in grid}) == len(grid) == count
    first, *_ = axes.values()
    assert [condition.name.split("_")[0] for condition in grid] == [
        name for name in first for _ in range(count // len(first))
    ]


@settings(deadline=None, max_examples=30)
@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_value_of_a_study_reaches_the_recipe_as_it_is(value: Any) -> None:
    assert change_recipe_text({}, [cell_setting("a.b", value)]) == {"a": {"b": value}}


def test_expansion_is_the_same_every_time_and_seeds_and_conditions_are_what_differs(tmp_path: Path) -> None:
    two = [{"name": "a"}, {"name": "b", "set": {"connector.kind": "mlp", "training.steps": 7}}]
    asked = study(conditions=two, seeds=[3, 1], set={"training.batch": 4, "connector.latents": 16})
    cells = expand_cells(asked, tmp_path)
    assert [cell.name for cell in cells] == ["a/seed-3", "a/seed-1", "b/seed-3", "b/seed-1"]
    assert cells == expand_cells(asked, tmp_path)
    assert [cell.recipe.training.seed for cell in cells] == [3, 1, 3, 1]
    assert {cell.recipe.training.batch for cell in cells} == {4}
    assert [cell.recipe.training.steps for cell in cells] == [600, 600, 7, 7]
    # A new kind empties its section: the study's latents were the other connector's.
    assert cells[2].recipe.connector.model_dump() == {"kind": "mlp", "read": None, "whiten": False}
    assert cells[0].recipe.connector.model_dump()["latents"] == 16


def test_cells_are_chosen_by_condition_cell_or_pattern(tmp_path: Path) -> None:
    cells = expand_cells(study(conditions=[{"name": "t5-small"}, {"name": "llama"}], seeds=[0, 1]), tmp_path)
    names = lambda only: [cell.name for cell in choose_cells(cells, only)]  # noqa: E731
    assert names(["t5-*"]) == ["t5-small/seed-0", "t5-small/seed-1"]
    assert names(["*/seed-1"]) == ["t5-small/seed-1", "llama/seed-1"]
    assert names(["llama", "llama/seed-0"]) == ["llama/seed-0", "llama/seed-1"]
    with pytest.raises(RecipeError, match=r"no cell matches 'lama'; did you mean 'llama'"):
        choose_cells(cells, ["lama"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"conditions": []}, "either `conditions` or `axes`"),
        ({"conditions": [{"name": "a"}], "axes": {"x": [{"name": "a"}]}}, "either `conditions` or `axes`"),
        ({"conditions": [{"name": "a"}, {"name": "a"}]}, "conditions: 'a' appears twice"),
        ({"conditions": [{"name": "a/b"}]}, "also a folder's name"),
        ({"conditions": [{"name": "a"}], "seeds": [1, 1]}, "seeds: '1' appears twice"),
        ({"conditions": [{"name": "a"}], "baseline": "b"}, "condition 'b' does not exist"),
        ({"conditions": [{"name": "a"}], "rows": [{"name": "r", "suite": "word"}]}, "did you mean 'world'"),
        ({"conditions": [{"name": "a"}], "sedes": [1]}, "sedes: unknown key; did you mean 'seeds'"),
        (
            {
                "conditions": [{"name": "a"}],
                "claims": [{"says": "!", "better": "a", "than": "z", "rows": ["All"]}],
            },
            "claims: condition 'z'",
        ),
        (
            {
                "axes": {
                    "x": [{"name": "a", "recipe": "quickstart"}],
                    "y": [{"name": "b", "recipe": "quickstart"}],
                }
            },
            "both set a recipe",
        ),
    ],
)
def test_what_does_not_hold_together_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as found:
        study(**fields)
    assert said in str(found.value)


def test_a_wrong_recipe_is_said_with_its_condition(tmp_path: Path, write_study: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=r"condition 'a': training.stesp: unknown key"):
        expand_cells(study(conditions=[{"name": "a", "set": {"training.stesp": 1}}]), tmp_path)
    with pytest.raises(RecipeError, match="condition 'a': there is no recipe 'quikstart'"):
        expand_cells(study(conditions=[{"name": "a"}], recipe="quikstart"), tmp_path)
    with pytest.raises(
        RecipeError, match="there is no study 'world-readouts'; did you mean 'world-read-outs'"
    ):
        load_study("world-readouts")
    broken = write_study(tmp_path)
    broken.write_text("name: [")
    with pytest.raises(RecipeError, match="is not valid YAML"):
        load_study(str(broken))


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_holds_together(name: str, tmp_path: Path) -> None:
    found = load_study(name)
    cells = expand_cells(found, tmp_path)
    assert found.name == name
    assert len(cells) == len(found.grid()) * len(found.seeds)
    rows = {row.name for row in found.rows}
    if name not in ("connectors", *OF_TRAINING):
        assert rows | set(found.not_measured) >= ELEVEN, "the paper's rows, or why they are not there"
    if name.startswith("world"):
        assert len(found.seeds) == 3
    if name.startswith("world") and name not in OF_TRAINING:
        assert found.ceiling
        assert {"Counting", "Negation", "Unseen combinations", "Unseen wordings"} <= rows
        assert len({cell.recipe.training.steps for cell in cells}) == 1


@pytest.mark.parametrize("name", [name for name in shipped_studies() if name.startswith("world-")])
def test_every_cell_of_a_shipped_study_of_the_world_can_start(name: str, tmp_path: Path) -> None:
    cells = expand_cells(load_study(name), tmp_path)
    for cell in {cell.condition: cell for cell in cells if not cell.native}.values():
        packaged = PACKAGED.get(cell.recipe.language.model_dump()["source"])
        if packaged is None or packaged.path() is not None:
            check_start(cell.recipe, None)


def test_the_study_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/studies.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", guide, flags=re.M | re.S)
    path = tmp_path / "guide.yaml"
    path.write_text(text)
    assert len(expand_cells(load_study(str(path)), tmp_path)) == 6
    for name in shipped_studies():
        assert name in guide or (name.startswith("world-") and "`world-...`" in guide)


def test_shipped_studies_are_listed_and_shown() -> None:
    text = CliRunner().invoke(app, ["show", "studies"]).stdout
    for name in shipped_studies():
        assert name in text
    shown = CliRunner().invoke(app, ["show", "study.world-read-outs"]).stdout
    assert shown == shipped_studies()["world-read-outs"].read_text(encoding="utf-8")
