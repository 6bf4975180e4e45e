"""A toy study of two language models, two seeds and four pictures a cell, made once for all tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from lavibridge.cli.main import app

RECIPE: dict[str, Any] = {
    "language": {"kind": "llama", "source": "random", "max_tokens": 60},
    "vision": {"kind": "sd", "source": "random"},
    "connector": {"kind": "lavi"},
    "lora": {"language": {"rank": 2}, "vision": {"rank": 2}},
    "data": {"kind": "world", "scenes": 4},
    "training": {
        "steps": 2,
        "batch": 2,
        "warmup": 1,
        "preview_every": 0,
        "checkpoint_every": 1,
        "ema": None,
        "device": "cpu",
    },
}
STUDY: dict[str, Any] = {
    "name": "toy",
    "question": "Does it matter which?",
    "recipe": "toy-recipe.yaml",
    "seeds": [0, 1],
    "axes": {
        "language": [
            {"name": "llama"},
            {
                "name": "bert",
                "label": "BERT <both ways>",
                "set": {"language.kind": "bert", "language.source": "random"},
            },
        ]
    },
    "suites": {"world": {"suite": "world", "categories": ["one", "unseen-words"], "limit": 2, "steps": 1}},
    "rows": [
        {"name": "One thing", "suite": "world", "categories": ["one"]},
        {"name": "Colour", "suite": "world", "categories": ["unseen-words"], "clause": "color"},
    ],
    "claims": [{"says": "Both ways is better", "better": "bert", "than": "llama", "rows": ["One thing"]}],
    "not_measured": {"Short-FID": "four pictures"},
    "ceiling": True,
}
Write = Callable[..., Path]
Lavi = Callable[..., Result]


@pytest.fixture(scope="session")
def write_study() -> Write:
    """Writes the toy study into a folder, with fields laid over it, beside its recipe."""

    def write(folder: Path, **changes: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "toy-recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        path = folder / "toy.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}))
        return path

    return write


@pytest.fixture(scope="session")
def lavi() -> Lavi:
    """`lavi study ...`, in this process; what it raises is raised."""

    def call(*arguments: object) -> Result:
        done = CliRunner().invoke(app, ["study", *map(str, arguments)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return call


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, write_study: Write) -> Path:
    """The file of the toy study."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def made(toy: Path, lavi: Lavi) -> Path:
    """Its folder, all cells made by one command; nobody changes it."""
    out = toy.parent / "made"
    assert lavi(toy, "--out", out).exit_code == 0
    return out
