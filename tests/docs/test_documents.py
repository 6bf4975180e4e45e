"""What the documents say is true: commands parse, settings exist, links lead somewhere, examples run."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from lavibridge.cli.main import app
from lavibridge.recipes.recipe import load_recipe

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path for place in ("*.md", "docs/**/*.md", "integrations/**/*.md") for path in ROOT.glob(place)
)


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [str(each) for each in found]


def commands() -> list[list[str]]:
    lines = [line for path in DOCUMENTS for block in blocks(path, "bash") for line in block.splitlines()]
    lines += re.findall(r"`(lavi [^`]*)`", README.read_text(encoding="utf-8"))
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("lavi ")]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_command_in_the_documents_is_one_that_lavi_takes(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("lavi", list(arguments), resilient_parsing=False)
    name, verb, rest = command.resolve_command(context, list(arguments))  # type: ignore[attr-defined]
    taken = verb.make_context(name, rest, parent=context).params
    if name == "train":
        load_recipe(taken["recipe"], taken["settings"] or [])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_first_forty_lines_hold_picture_commands_and_python() -> None:
    head = "\n".join(README.read_text(encoding="utf-8").splitlines()[:40])
    assert re.search(r"!\[[^\]]{20,}\]\([^)]+\.png\)", head), "a picture with an alternative text"
    assert "make quickstart" in head
    assert "make test" in head
    assert re.search(r"^```python\n.*?^```", head, flags=re.M | re.S)


def test_the_readme_has_at_most_900_words() -> None:
    """Code and tables count too; what has neither letter nor digit is no word."""
    words = [word for word in README.read_text(encoding="utf-8").split() if re.search(r"\w", word)]
    assert len(words) <= 900


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as printed, but for the number of steps, of alignment too, and of scenes."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    assert set(re.findall(r"from (\w[\w.]*) import", code)) == {"lavibridge", "pathlib"}
    shorter = '"training.steps=2", "training.align.steps=2", "data.scenes=32", "training.batch=4"'
    assert '"training.steps=100"' in code
    assert "num_inference_steps=20" in code
    code = code.replace('"training.steps=100"', shorter).replace(
        "num_inference_steps=20", "num_inference_steps=2"
    )
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert len(list((tmp_path / "runs" / "first").glob("*.png"))) == 2


def test_the_log_lists_every_entry_once_by_topic() -> None:
    text = (ROOT / "LOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (\d{4}-\d\d-\d\d.*)$", text, flags=re.M)
    index = text[text.index("## Findings by topic") : text.index(f"## {titles[0]}")]
    assert sorted(re.findall(r"\]\(#([^)]+)\)", index)) == sorted(map(anchor, titles))


def anchor(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
