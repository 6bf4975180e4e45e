"""A run folder made by really training a toy bridge of the real classes for a few steps."""

from pathlib import Path

import pytest

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
    },
    "preview": {"prompts": ["a red circle", 'a <blue> "square" & a star'], "steps": 2},
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished toy run."""
    return train(make_recipe(TOY), tmp_path_factory.mktemp("runs") / "toy-run", resume=False)
