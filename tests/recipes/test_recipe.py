"""Recipes: the shipped ones hold, a written one reads back equal, and every slip is answered by name."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lavibridge.core.errors import RecipeError
from lavibridge.recipes.recipe import dump_recipe, load_recipe, make_recipe, shipped_recipes
from lavibridge.recipes.recipe_text import change_recipe_text, read_recipe_yaml

TOY: dict[str, Any] = {
    "language": {"kind": "llama", "source": "random"},
    "vision": {"kind": "sd", "source": "random"},
    "connector": {"kind": "lavi"},
    "data": {"kind": "world", "scenes": 8},
    "training": {"steps": 2},
}


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_read_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    written = tmp_path / "recipe.yaml"
    written.write_text(dump_recipe(recipe))
    assert load_recipe(written) == recipe


def test_the_promised_recipes_are_shipped() -> None:
    promised = {"quickstart", "mini-llama_mini-sd_lavi", "minilm_mini-sd_lavi"}
    assert promised <= set(shipped_recipes())


def test_a_written_recipe_names_every_field_and_its_kinds_first() -> None:
    content = yaml.safe_load(dump_recipe(make_recipe(TOY)))
    for section in ("language", "vision", "connector", "data"):
        assert next(iter(content[section])) == "kind"
    assert content["training"]["checkpoint_every"] == 1000
    assert content["lora"]["language"]["rank"] == 32


def test_changes_by_path() -> None:
    recipe = load_recipe(
        "quickstart",
        ["training.steps=7", "training.lr.connector=1e-4", "lora.language=null", "lora.vision.rank=4"],
    )
    assert recipe.training.steps == 7
    assert recipe.training.lr.connector == 1e-4
    assert recipe.lora.language is None
    assert recipe.lora.vision is not None
    assert recipe.lora.vision.rank == 4


def test_another_kind_empties_its_section_wherever_it_stands(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [f"data.path={tmp_path}/pairs.tsv", "data.kind=tsv"])
    assert recipe.data.model_dump()["kind"] == "tsv"
    assert recipe.data.model_dump()["path"] == tmp_path / "pairs.tsv"
    same = load_recipe("quickstart", ["data.kind=world"])
    assert same == load_recipe("quickstart")


def test_changing_a_recipe_leaves_the_original_alone() -> None:
    original: dict[str, Any] = {"training": {"lr": {"connector": 1}}}
    assert change_recipe_text(original, ["training.lr.connector=2"]) == {"training": {"lr": {"connector": 2}}}
    assert original == {"training": {"lr": {"connector": 1}}}


def test_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = make_recipe({**TOY, "data": {"kind": "tsv", "path": "pairs.tsv"}})
    assert recipe.data.model_dump()["path"] == tmp_path / "pairs.tsv"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.stepz=1"], r"training\.stepz: unknown key; did you mean 'steps'"),
        (["trainning.steps=1"], r"trainning: unknown key; did you mean 'training'"),
        (["training.lr.conector=1"], r"training\.lr\.conector: unknown key; did you mean 'connector'"),
        (["data.scene=1"], r"data\.scene: unknown key; did you mean 'scenes'"),
        (["connector.kind=lavy"], r"unknown kind 'lavy'; did you mean 'lavi'"),
        (["vision.kind=sdd"], r"unknown kind 'sdd'; did you mean 'sd'"),
        (["data.kind=tsv"], r"data\.path: this required key is missing"),
        (["training.steps=many"], r"training\.steps: .*found 'many'"),
        (["training.steps=-1"], r"training\.steps: .*found -1"),
        (["training.batch=-1"], r"training\.batch"),
        (["training.ema=1.5"], r"training\.ema"),
        (["lora.language.rank=0"], r"lora\.language\.rank"),
        (["training.steps"], r"write key\.path=value"),
        (["=3"], r"write key\.path=value"),
        (["training.steps.more=3"], r"which has no fields"),
        (["training.steps={"], r"not valid YAML"),
        (["vision.kind=auto"], r"vision\.kind is missing"),
        (["training=null"], r"training: "),
    ],
)
def test_slips_are_answered_by_name(settings: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe("quickstart", settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("- a\n- b\n", "found a list"),
        ("training: {steps: 1\n", "not valid YAML"),
        ("training:\n  steps: 1\n  steps: 2\n", "'steps' is written twice"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RecipeError, match=said):
        load_recipe(path)


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match="shipped recipes"):
        load_recipe(tmp_path / "gone.yaml")


def test_a_shipped_recipe_is_found_by_name_before_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("nonsense")
    assert load_recipe("quickstart").model_dump()["language"]["source"] == "mini-llama"


def test_short_forms_of_sections() -> None:
    short = make_recipe({**TOY, "connector": "lavi"})
    assert short == make_recipe(TOY)
    with pytest.raises(RecipeError, match="should hold fields"):
        make_recipe({**TOY, "connector": 3})


def test_yaml_anchors_stay_within_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: &x {b: 1}\nc: *x\n")
    assert read_recipe_yaml(path) == {"a": {"b": 1}, "c": {"b": 1}}


TURNED = "1e5 1.5e+5 2024-01-01 no on Yes 007 0x10 1_000 12:30 null ~ .5 .inf true [a {a #1 *a !a @a %a `a ?"


@pytest.mark.parametrize("typed", [*TURNED.split(), "a: b", "- a", "a #1", "&a b", "| a", "> a"])
def test_text_and_paths_stay_what_was_typed(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("quickstart", ["data.kind=csv", f"data.path={typed}", f"data.delimiter={typed[0]}"])
    assert recipe.data.model_dump()["path"] == tmp_path / Path(typed).expanduser()
    assert recipe.data.model_dump()["delimiter"] == typed[0]
    recipe = load_recipe("quickstart", ["language={kind: llama, source: x}", f"language.source={typed}"])
    assert recipe.language.model_dump()["source"] == typed
    assert load_recipe("quickstart", [f"training.device={typed}"]).training.device == typed
    folder = load_recipe("quickstart", [f"training.cache.folder={typed}"]).training.cache
    assert folder is not None
    assert folder.folder == tmp_path / Path(typed).expanduser()
    assert make_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_fields_that_may_be_empty_are_emptied_and_quotes_are_taken_off() -> None:
    before = ["data.kind=hub", "data.path='null'", "data.name=2024"]
    data = load_recipe("quickstart", [*before, "data.revision=1_000"]).data.model_dump()
    assert (data["path"], data["name"], data["revision"]) == ("null", "2024", "1_000")
    for nothing in ("null", "~", ""):
        assert load_recipe("quickstart", [*before, f"data.name={nothing}"]).data.model_dump()["name"] is None
    assert load_recipe("quickstart", [*before, "data.name='~'"]).data.model_dump()["name"] == "~"
    assert load_recipe("quickstart", [*before, r'data.name="a\tb"']).data.model_dump()["name"] == "a\tb"
    with pytest.raises(RecipeError, match=r"data\.path: "):
        load_recipe("quickstart", ["data.kind=tsv", "data.path="])


def test_other_fields_are_read_as_yaml() -> None:
    recipe = load_recipe(
        "quickstart",
        [
            "training.steps=1_000",
            "training.lr.connector=1e-4",
            "training.checkpointing=on",
            "preview.prompts=[a, b]",
        ],
    )
    assert (recipe.training.steps, recipe.training.checkpointing) == (1000, True)
    assert recipe.preview.prompts == ("a", "b")
    pair = ["language={kind: pair, source: random}", "language.passthrough={source: random, kind: t5}"]
    assert load_recipe("quickstart", pair).language.model_dump()["passthrough"] == {
        "source": "random",
        "kind": "t5",
    }
    assert (
        load_recipe("quickstart", [pair[0], "language.passthrough=007"]).language.model_dump()["passthrough"]
        == "007"
    )


@pytest.mark.parametrize("written", ["007", "no", "2024-01-01", "1.5", "1_000", "~"])
def test_a_file_that_yaml_turns_into_something_else_is_told_to_quote_it(written: str, tmp_path: Path) -> None:
    text = dump_recipe(make_recipe({**TOY, "data": {"kind": "tsv", "path": "pairs.tsv"}}))
    path = tmp_path / "recipe.yaml"
    for line in (next(each for each in text.splitlines() if "  path:" in each), "  source: random"):
        path.write_text(text.replace(line, f"{line.partition(':')[0]}: {written}", 1))
        with pytest.raises(RecipeError, match=r"(path|source): .*quote what should stay text"):
            load_recipe(path)
        path.write_text(text.replace(line, f"{line.partition(':')[0]}: '{written}'", 1))
        load_recipe(path)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["vision.dtype=float16", "lora.vision=null"], "vision.dtype"),
        (["language.dtype=float16"], "language.dtype"),
        (["language.dtype=float16", "lora.language=null", "connector.kind=query"], "language.dtype"),
    ],
)
def test_gradients_do_not_pass_through_float16(settings: list[str], named: str) -> None:
    with pytest.raises(RecipeError, match=f"{named} is float16.* use bfloat16"):
        load_recipe("quickstart", settings)


def test_what_no_gradient_passes_through_may_be_float16() -> None:
    recipe = load_recipe("quickstart", ["language.dtype=float16", "lora.language=null"])
    assert recipe.language.model_dump()["dtype"] == "float16"
