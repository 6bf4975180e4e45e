"""Whatever is typed: the command answers, or fails with an error of its own (exit 1) or of usage (exit 2)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from click.exceptions import ClickException, Exit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError
from lavibridge.recipes.recipe import dump_recipe, load_recipe, make_recipe
from lavibridge.training.run_folder import flatten_recipe

YAMLS = (
    "null true [] {} 0 -1 .nan .inf 1e400 2024-13-45 12:30:45 ~ 1:60:99999999999 0x 09 = <<: {<<:3} [1,2 "
    "{a:1,a:2} {[1]:2} !!set{a} &a[*a] *x !!binary:abc \0 [/x] \u2028 auto lavi t5 random mini-sd "
    f"{2**64} {'[' * 1000} {'9' * 5000}"
).split(" ")
WRITTEN = [text.replace(":", ": ").replace("{a", " {a").replace("[*", " [*") for text in YAMLS]
TAGGED = [f"!!{tag} x" for tag in ("int", "float", "timestamp", "binary", "python/name:os.system", "omap")]
VALUES = st.sampled_from([*YAMLS, *WRITTEN, *TAGGED]) | st.text(max_size=8) | st.floats().map(str)
LISTS = st.lists(VALUES, max_size=3).map(lambda each: f"[{', '.join(each)}]")
KEYS = sorted(flatten_recipe(load_recipe("quickstart").model_dump(mode="json")))
PLACES = (
    *KEYS,
    "training.validation.seed",
    "training.cache.folder",
    "language.passthrough",
    "data.parts",
    "lora",
)
SETTINGS = st.tuples(st.sampled_from(PLACES) | st.text(max_size=6), VALUES | LISTS).map("=".join)
FILES = {
    "file.txt": b"a cat\nb dog\n",
    "bad.yaml": b"\xff: [",
    "number.yaml": b"3",
    "own.yaml": b"name: o\nversion: 1\nprompts: {kind: lines, path: file.txt}\nmetrics: [{kind: nope}]\n",
    "list.json": b"[1]",
    "votes.jsonl": b"{\n3\nnull\n",
    "x.png": b"\x89PNG\r\n\x1a\nxx",
    "run/recipe.yaml": b"training: {steps: 1}\n",
    "run/checkpoints/step-1/manifest.json": b"{}",
    "evaluation/results.json": b"{}",
    "evaluation/records.jsonl": b"{}\n",
    "evaluation2/results.json": b"[]",
    "bridge/bridge.json": b'{"format": 1}',
    "bridge2/bridge.json": b"[]",
    "bridge3/bridge.json": b'{"format": 1, "files": {}, "language": 3, "vision": {}, "connector": {}}',
    "pipeline/model_index.json": b"{}",
}
NAMES = st.sampled_from(
    [
        *FILES,
        *(name.partition("/")[0] for name in FILES if "/" in name),
        *("", " ", "-1", "..", "[/x]", "[red]", "a\0b", "~nobody", "é", "x" * 300, "\ud800", "mini-llama"),
        *(
            "random",
            "lavi",
            "world",
            "languages",
            "connector.lavi",
            "metric.world",
            "data.nope",
            "owner/name",
        ),
        *("training.device=mps", "training.device=cuda:9", f"training.seed={2**64}", "data.kind=tsv"),
        *("nan", "inf", "0", "2", "0.5", str(2**64), "{kind: world}", "{[1]: 2}", "2024-13-45", "peft"),
    ]
)
LONG = ("quickstart", "serve", "pretrain", "gallery")
"""Verbs that go on for as long as they are let."""


def profile(count: int) -> Any:
    """So many examples; the quick ones are the same at every run."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=count < 1000,
        suppress_health_check=list(HealthCheck),
    )


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with its parameters."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))
    if not hasattr(command, "commands") and path[-1] not in LONG:
        yield path, command


COMMANDS = list(leaves(typer.main.get_command(app)))


@st.composite
def lines(draw: Any) -> list[str]:
    """A verb with arguments and options of its own, and values that it may not have."""
    path, command = draw(st.sampled_from(COMMANDS))
    line = list(path)
    for parameter in command.params:
        is_option = parameter.opts[0].startswith("-")
        if parameter.name == "help" or (not parameter.required and draw(st.integers(0, 2))):
            continue
        line += [draw(st.sampled_from(parameter.opts))] if is_option else []
        if not getattr(parameter, "is_flag", False):
            count = draw(st.integers(1, 3)) if parameter.nargs == -1 else parameter.nargs
            line += [draw(NAMES | st.text(max_size=6)) for _ in range(count)]
    return line


def read(root: str, changes: list[str]) -> None:
    try:
        recipe = load_recipe(root, changes)
    except LaviError as error:
        str(error).encode()
        return
    assert make_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def run(line: list[str]) -> None:
    try:
        app(line, standalone_mode=False)
    except (LaviError, ClickException, Exit):
        pass
    except OSError as error:
        if error.filename is None:  # else `lavi` says it with its file
            raise
    except Exception as error:  # typer's own usage errors
        if not type(error).__module__.startswith("typer"):
            raise


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of damaged and foreign files, without a hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_change_to_a_recipe_is_a_traceback(folder: Path, count: int) -> None:
    profile(count)(given(st.just("quickstart"), st.lists(SETTINGS, min_size=1, max_size=3))(read))()


@pytest.mark.parametrize("count", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_no_command_line_is_a_traceback(folder: Path, count: int) -> None:
    profile(count)(given(lines())(run))()
