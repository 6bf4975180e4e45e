"""Run folders made by really training a toy bridge of the real classes, and by really evaluating it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.recipes.recipe import make_recipe
from lavibridge.training.train import train

TOY = {
    "language": {"kind": "bert", "source": "random"},
    "vision": {"kind": "sd", "source": "random"},
    "connector": {"kind": "lavi"},
    "lora": {"language": {"rank": 2}, "vision": {"rank": 2}},
    "data": {"kind": "world", "scenes": 16},
    "training": {
        "steps": 6,
        "batch": 4,
        "warmup": 2,
        "preview_every": 3,
        "checkpoint_every": 0,
        "device": "cpu",
        "validation": {"share": 0.2, "every": 3, "pictures": 3, "times": 2},
    },
    "preview": {"prompts": ["a red circle", 'a <blue> "square" & a star'], "steps": 2},
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished toy run."""
    return train(make_recipe(TOY), tmp_path_factory.mktemp("runs") / "toy-run", resume=False)


@pytest.fixture(scope="session")
def evaluated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same prompts: one that cannot draw yet, and one drawn by the miniature image model."""
    folder = tmp_path_factory.mktemp("evaluated")
    drawers = {
        "first": Bridge.from_pretrained(run).eval(),
        "second": BridgePipeline.native("mini-sd", device="cpu").bridge,
    }
    for name, drawer in drawers.items():
        shutil.copytree(run, folder / name)
        evaluate(
            drawer,
            "world",
            folder / name / "evaluation" / "world",
            categories=("one", "counting"),
            limit=3,
            num_inference_steps=4,
            metrics=[{"kind": "clip_score", "model": "mini-clip"}],
        )
    return folder / "first", folder / "second"


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a run, so that a test may spoil it."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy
