"""Text that comes in: messages show it as it is; YAML and arguments that are none are refused in one line."""

import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_device
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import write_json
from lavibridge.core.log import console, progress_bar
from lavibridge.core.seeds import MAX_SEED
from lavibridge.core.yaml_text import parse_yaml
from lavibridge.evaluation.suite import read_suite
from lavibridge.generation.checks import check_seeds
from lavibridge.recipes.recipe import load_recipe
from lavibridge.report.page import write_report

MARKED = "[/x] [red]a[/red] :smile:"


def test_no_message_is_markup() -> None:
    with console.capture() as said:
        console.print(MARKED)
        table = Table(MARKED)
        table.add_row(MARKED)
        console.print(table)
        with progress_bar(MARKED) as bar:
            bar.add_task(MARKED, total=1, status=MARKED)
    assert said.get().count("[red]a") >= 3
    assert "😄" not in said.get()


@pytest.mark.parametrize(
    "text",
    ["2024-13-45", "!!int x", "!!timestamp x", "{[1]: 2}", "&a [*a]", "[" * 1000, "9" * 5000, "a: 1\na: 2"],
)
def test_yaml_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"^here is not valid YAML: ") as caught:
        parse_yaml(text, "here")
    assert "\n" not in str(caught.value)
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"own\.yaml is not valid YAML"):
        read_suite(str(tmp_path / "own.yaml"))
    with pytest.raises(RecipeError):
        load_recipe("quickstart", [f"training.steps={text}"])


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 10**30])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(RecipeError, match=r"from 0 to 2\^64 - 1"):
        check_seeds([seed])
    for field in ("training.seed", "data.seed", "preview.seed", "training.validation.seed"):
        with pytest.raises(RecipeError, match=f"{field}: input should be"):
            load_recipe("quickstart", [f"{field}={seed}"])


def test_the_largest_seed_draws() -> None:
    toy = {"source": "random"}
    bridge = Bridge.compose({"kind": "t5", **toy}, {"kind": "pixart", **toy}, "linear", None, None)
    assert BridgePipeline(bridge)("a cat", num_inference_steps=1, seed=MAX_SEED).images
    for prompts, away in ((["a cat", "a \ud800"], ""), ("a cat", "\ud800")):
        with pytest.raises(RecipeError, match="is not valid Unicode"):
            BridgePipeline(bridge)(prompts, num_inference_steps=1, seed=0, negative_prompt=away)


@pytest.mark.parametrize(
    "name", ["mps", "cuda", "cuda:9", "cpu:1", "meta", "xpu", "", "cuda:-1", "cpu:99999999999"]
)
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    if name.partition(":")[0] == pick_device().type:
        pytest.skip("it is there")
    with pytest.raises(RecipeError, match="device: "):
        pick_device(name)


def test_an_argument_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "lavibridge", "generate", "mini-sd", b"a \xff"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": 1}', '{"format": 1, "files": {}, "language": 3}', "3", '{"format": []}']
)
def test_a_damaged_bridge_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "bridge.json").write_text(text)
    with pytest.raises(RunError, match=r"bridge\.json"):
        Bridge.from_pretrained(tmp_path)


@pytest.mark.parametrize("field", ["data.path", "training.cache.folder"])
def test_a_home_that_there_is_not_is_refused(field: str) -> None:
    with pytest.raises(RecipeError, match="'~nobody-at-all/x' names a home folder that does not exist"):
        load_recipe("quickstart", ["data.kind=tsv", "data.path=a.tsv", f"{field}=~nobody-at-all/x"])


@pytest.mark.parametrize("name", ["", ".", "..", "a-folder"])
def test_a_file_is_not_written_over_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-folder").mkdir()
    for write in (lambda path: write_json(path, {}), lambda path: write_report([tmp_path], path)):
        with pytest.raises(RunError, match="names a folder, but the output is a file"):
            write(Path(name))
    assert [path.name for path in tmp_path.iterdir()] == ["a-folder"]


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 20_000, "nests more than 32 levels deep"),
        ("".join(" " * depth + "a:\n" for depth in range(2_000)), "nests more than 32 levels deep"),
        (ALIASES, "more than 100000 values, with those that aliases repeat"),
    ],
    ids=["flow", "block", "aliases"],
)
def test_a_bomb_is_refused_at_its_bound(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        parse_yaml(text, "recipe.yaml")
    assert len(str(caught.value)) < 300


def test_aliases_within_the_bound_are_read() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]", "recipe.yaml")["b"] == [[1, 2], [1, 2]]
