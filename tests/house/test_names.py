"""The field's own words: no retired word in a name, no class name twice, and a glossary that holds."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lavibridge"
SOURCES = sorted(PACKAGE.rglob("*.py"))
RETIRED = {
    "alone": "context_free",
    "asked": "requested, or the configuration",
    "belongs": "attribute_binding",
    "beside": "passthrough",
    "canvas": "RequestState",
    "chance": "rng, or probability",
    "culprits": "samples",
    "desk": "Queue",
    "given": "precomputed, or the thing itself",
    "heard": "layer or attention outputs",
    "held": "locked, archived, or held_out",
    "house": "AppState",
    "idles": "has_idle_lora",
    "judge": "score, scorer; llm_judge where a judge model is meant",
    "judged": "scored",
    "keeper": "backend",
    "learnt": "distilled, learned",
    "missed": "fvu",
    "notes": "console, metadata, log",
    "opened": "per_block, open_*",
    "outline": "meta_model",
    "painter": "vision",
    "promise": "constraint",
    "promises": "constraints",
    "reusing": "step_cache",
    "room": "package, or disk_space",
    "rooms": "packages",
    "said": "the message or value itself",
    "shown": "patch labels, displayed",
    "speaker": "language",
    "spent": "elapsed, timing",
    "surroundings": "environment",
    "told": "answers, targets, metadata",
    "wanted": "target",
    "wish": "Request",
}
"""A word that no name holds -> what takes its place."""
PUBLIC_ONLY = {"found": "the thing that was found", "made": "the thing that was made"}
"""Words that a local name may hold and a public one may not."""
EXCEPTIONS = {
    "HeldOut": "the field's word for data kept apart for validation",
    "held_out": "the same",
    "llm_judge": "the field's word for a language model that scores",
    "resize_to_canvas": "the world's drawing canvas, of 64 x 64 pixels",
}
"""A name, or a part of one, that may hold a retired word, and why."""
GLOSSARY = ROOT / "docs" / "glossary.md"


@cache
def words(name: str) -> frozenset[str]:
    """The words of a name, exceptions left out."""
    for each in EXCEPTIONS:
        name = re.sub(rf"(?<![a-z]){each}(?![a-z])", "", name)
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return frozenset(part.lower() for part in parts)


def is_public(name: str) -> bool:
    return not name.startswith("_") or name.startswith("__")


OTHERS = ("connection_made",)
"""Methods that other libraries name: asyncio's protocols."""


def names(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Names of classes, functions, arguments and fields with their lines, and whether they are public."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, node.lineno, is_public(node.name)
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    yield each.target.id, each.lineno, is_public(each.target.id)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in OTHERS:
            yield node.name, node.lineno, is_public(node.name)
            arguments = node.args
            for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                yield each.arg, each.lineno, is_public(node.name)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_name_holds_a_retired_word(path: Path) -> None:
    found = [
        (path.stem, 1, True),
        (path.parent.name, 1, True),
        *names(ast.parse(path.read_text(encoding="utf-8"))),
    ]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name} ({word}: {instead})"
        for name, line, public in found
        for word, instead in (RETIRED | (PUBLIC_ONLY if public else {})).items()
        if word in words(name)
    ]
    assert wrong == []


def test_no_two_public_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and is_public(node.name):
                homes[node.name].append(path.relative_to(PACKAGE).as_posix())
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_two_public_functions_share_a_name() -> None:
    """Commands have the names of what they call; every file of routes has one `make_router`."""
    homes = defaultdict(list)
    for path in SOURCES:
        if path.parent.name == "cli":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_public(node.name):
                homes[node.name].append(path.relative_to(PACKAGE).as_posix())
    del homes["make_router"]
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_the_glossary_has_each_word_once_and_its_places_exist() -> None:
    rows = re.findall(
        r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|$", GLOSSARY.read_text(encoding="utf-8"), flags=re.M
    )[2:]
    terms = [term.lower() for term, _, _ in rows]
    assert len(rows) > 30
    assert terms == sorted(set(terms))
    for _, meaning, places in rows:
        assert meaning.endswith(".")
        for place in re.findall(r"`([\w./-]+\.(?:py|yaml|md))`", places):
            assert (PACKAGE / place).is_file(), place
