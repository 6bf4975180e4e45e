"""Toy runs of the real classes, small enough to train in a second or two."""

from collections.abc import Callable
from typing import Any

import pytest

from lavibridge.recipes.recipe import Recipe, make_recipe

TOY: dict[str, dict[str, Any]] = {
    "language": {"kind": "llama", "source": "random", "max_tokens": 24},
    "vision": {"kind": "sd", "source": "random"},
    "connector": {"kind": "lavi"},
    "lora": {"language": {"rank": 4}, "vision": {"rank": 4}},
    "data": {"kind": "world", "scenes": 10, "size": 16},
    "training": {
        "steps": 4,
        "batch": 2,
        "warmup": 2,
        "device": "cpu",
        "preview_every": 0,
        "lr": {"language_lora": 1e-3, "connector": 1e-3, "vision_lora": 1e-3},
    },
    "preview": {"steps": 2, "prompts": ("a red circle", "a blue star")},
}


@pytest.fixture
def toy() -> Callable[..., Recipe]:
    """A toy recipe; sections given by name are laid over it."""

    def make(**sections: dict[str, Any]) -> Recipe:
        return make_recipe({name: {**value, **sections.get(name, {})} for name, value in TOY.items()})

    return make
