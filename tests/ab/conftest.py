"""Evaluated runs of known quality: they draw a prompt's own scene, or with some chance another's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from lavibridge.ab.key import AbKey, KeyItem
from lavibridge.ab.votes import UnblindedVote, Vote
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.world.captions import evaluation_prompts
from lavibridge.world.drawing import draw_scene

CATEGORIES = ("one", "two")
LIMIT = 8
PAIRS = [pair for category in CATEGORIES for pair in evaluation_prompts(category, LIMIT)]


class Sometimes:
    """Draws the right scene for a share of the prompts."""

    origin: ClassVar[dict[str, str]] = {"model": "drawn"}
    distilled_guidance_scale: ClassVar[float | None] = None

    def __init__(self, share: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        other = [pair.scene for pair in PAIRS]
        self.scenes = {
            pair.caption: pair.scene if rng.random() < share else other[rng.integers(len(other))]
            for pair in PAIRS
        }

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float | None, quality: str
    ) -> list[Image.Image]:
        return [Image.fromarray(draw_scene(self.scenes[prompt])) for prompt in prompts]


def _evaluated(run: Path, share: float, draws: int, **options: Any) -> Path:
    settings = {"categories": CATEGORIES, "limit": LIMIT, **options}
    evaluate(Sometimes(share, draws), "world", run / "evaluation" / "world", **settings)
    return run


@pytest.fixture(scope="session")
def evaluated() -> Callable[..., Path]:
    """Makes the folder of an evaluated run."""
    return _evaluated


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three runs, the best first. Their names are words that no page has by chance."""
    root = tmp_path_factory.mktemp("runs")
    shares = {"zebra-good": 0.95, "quokka-middling": 0.6, "walrus-poor": 0.1}
    return tuple(_evaluated(root / name, share, seed) for seed, (name, share) in enumerate(shares.items()))


def _cast(run: int, other: int, winner: int | None, **more: Any) -> UnblindedVote:
    """A vote on a comparison that shows `run` first."""
    options = {"prompt": "p", "item": "i", "rater": "anna", "category": "c", "question": "follows", **more}
    item = KeyItem(
        item=str(options["item"]),
        category=str(options["category"]),
        prompt=str(options["prompt"]),
        seed=0,
        first=run,
        second=other,
        repeat_of=options.get("repeat_of"),
    )
    vote = Vote(
        study="s",
        form=1,
        rater=str(options["rater"]),
        item=item.item,
        question=str(options["question"]),
        choice="tie" if winner is None else "first" if winner == run else "second",
        left=options.get("left", "first"),
        ms=options.get("ms", 1000),
        metric=options.get("metric"),
    )
    return UnblindedVote(
        rater=vote.rater,
        question=vote.question,
        item=item,
        first=run,
        second=other,
        winner=winner,
        vote=vote,
    )


@pytest.fixture(scope="session")
def cast() -> Callable[..., UnblindedVote]:
    """Makes a vote."""
    return _cast


@pytest.fixture
def key() -> AbKey:
    """A key of two runs and three comparisons, the last of which repeats the first."""
    items = [
        {"item": "aa", "category": "one", "prompt": "a circle", "seed": 1, "first": 0, "second": 1},
        {"item": "bb", "category": "two", "prompt": "a star", "seed": 2, "first": 1, "second": 0},
        {"item": "cc", "category": "one", "prompt": "a circle", "seed": 1, "first": 1, "second": 0}
        | {"repeat_of": "aa"},
    ]
    found = [{"name": "ours", "folder": "a"}, {"name": "theirs", "folder": "b"}]
    head = {"study": "0123", "form": 1, "suite": "world", "draw": 7}
    return AbKey.model_validate({**head, "runs": found, "items": items})
