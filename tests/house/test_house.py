"""The rules of STYLE.md that a tool can hold: sizes of files and functions, banned words, what is packed."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "lavibridge").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BANNED_NAMES = {"utils", "helpers", "common", "misc", "legacy"}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_source_file_keeps_the_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with one sentence about what it is"
    assert len(text.splitlines()) <= 400
    assert path.stem not in BANNED_NAMES
    assert "from __future__ import annotations" not in text
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            assert node.end_lineno - first + 1 <= 60, f"{node.name} is longer than 60 lines"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"line {node.lineno}"
        if isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            assert word not in {"NotImplementedError", "Self"}, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=named)
def test_nothing_is_left_for_later_and_nothing_is_mocked(path: Path) -> None:
    if path == Path(__file__):
        return
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    assert not re.search(r"unittest\.mock|MagicMock|mocker\b", text)
    assert "torchvision" not in re.findall(r"^\s*(?:from|import) (\w+)", text, flags=re.MULTILINE)


def test_every_dependency_has_a_pinned_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted += extra
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)==([0-9A-Za-z.]+)", line).groups()  # type: ignore[union-attr]
            pinned[re.sub(r"[-_.]+", "-", name).lower()] = version
    for each in wanted:
        name = re.match(r"[A-Za-z0-9_.-]+", each).group()  # type: ignore[union-attr]
        assert re.sub(r"[-_.]+", "-", name).lower() in pinned, f"{each} has no line in constraints.txt"
    assert pinned["torch"] == "2.13.0"
    assert "torchvision" not in pinned


@pytest.mark.slow
def test_the_import_contracts_hold() -> None:
    """As `make lint` checks them."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_is_written_once_and_the_same_everywhere() -> None:
    import lavibridge

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert lavibridge.__version__ == project["version"]
    assert f"version: {lavibridge.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_the_package_names_what_it_does_not_have() -> None:
    import lavibridge

    with pytest.raises(AttributeError, match="Bride"):
        lavibridge.Bride  # noqa: B018 - the access is the test
