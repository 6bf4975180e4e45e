"""What others wrote is read in few places: one reader of JSON, one of tensors, one join of file names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "lavibridge"
SOURCES = sorted(SOURCE.rglob("*.py"))
OWN_JSON = {
    "core/files.py": "the reader of JSON",
    "core/identity.py": "a note in the cache; damage means that it is made anew",
    "core/lock.py": "the holder of a lock, for a message",
    "core/safetensors_file.py": "a header, with an error of its own for names that occur twice",
    "data/pictures/index.py": "a value of this process",
    "study/cell_folder.py": "a value of this process",
    "zoo/tokenizers.py": "a value of this process",
}
"""Where JSON is parsed without `core.files.parse_json`, and why that is safe."""
OWN_WEIGHTS = {
    "core/weight_files.py": "the reader of other projects' pickles",
    "zoo/pretraining.py": "the state of this package's own pretraining",
}
"""Where pickles are read, always with `weights_only`."""
SAFE_JOINS = {
    ("study/cells.py", "home / holder[key]"): "a path of the user's own study file",
    ("zoo/pretraining.py", "self.work / position['state']"): "the state of this package's own pretraining",
    ("cli/generate.py", """self.out / f"{first:04d}-{_slug(stem)}-seed{own['seed']}.png\""""): "a number",
    ("core/packaged.py", "Path(folder) / self.file"): "a constant of this package",
    ("data/pictures/index.py", "self.folder / manifest['table']"): "`manifest` has checked it",
}
"""Joins of a folder with a name from a mapping that need no `path_below`, and why."""


def named(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_files_are_parsed_by_their_readers(path: Path) -> None:
    found = set(calls(path))
    if named(path) not in OWN_JSON:
        assert not found & {"json.loads", "json.load"}, "use core.files.read_json or parse_json"
    if named(path) not in OWN_WEIGHTS:
        assert not found & {"torch.load", "pickle.load", "pickle.loads"}, "use core.weight_files"
    assert not found & {"load_file", "yaml.load", "yaml.safe_load"} or named(path) == "core/yaml_text.py"


def joins(path: Path) -> Iterator[str]:
    """The joins `folder / name` whose name is an entry of a mapping or a record's file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            from_file = any(
                (isinstance(each, ast.Subscript) and isinstance(each.slice, ast.Constant | ast.Name))
                or (isinstance(each, ast.Attribute) and each.attr == "file")
                for each in ast.walk(node.right)
            )
            text = ast.unparse(node)
            if from_file and re.search(
                r"folder|path|root|home|work|out\b|run\b|place", ast.unparse(node.left)
            ):
                yield text


RECORDS = "`read_records` has checked the names"
CHECKED = {
    "evaluation/generated_images.py": RECORDS,
    "report/examples.py": RECORDS,
    "ab/evaluated_runs.py": RECORDS,
    "study/study_sheet.py": "a task of the suite, not a name from a file",
}
"""Files whose names are checked where they are read."""


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_names_from_files_are_joined_by_path_below(path: Path) -> None:
    if named(path) in CHECKED:
        return
    unknown = [join for join in joins(path) if (named(path), join) not in SAFE_JOINS]
    assert not unknown, "use core.paths.path_below, which keeps the file below its folder"


def test_the_lists_are_of_today() -> None:
    for name in (*OWN_JSON, *OWN_WEIGHTS, *CHECKED):
        assert (SOURCE / name).is_file()
    for name, join in SAFE_JOINS:
        assert join in list(joins(SOURCE / name))
