"""Comparisons: paired by prompt and noise, and refused where numbers do not mean the same."""

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import RunError
from lavibridge.evaluation.base import ImageGenerator
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.stats import bootstrap_interval_of, sign_flip_p
from lavibridge.world.captions import evaluation_prompts
from lavibridge.world.drawing import draw_scene
from lavibridge.world.scene import Scene

PAIRS = [pair for category in ("one", "two") for pair in evaluation_prompts(category, 12)]


class Sometimes:
    """Draws a prompt's scene for a share of the prompts, else an empty ground."""

    origin: ClassVar[dict[str, str]] = {"model": "drawn"}
    distilled_guidance_scale: ClassVar[float | None] = None

    def __init__(self, share: float) -> None:
        rng = np.random.default_rng(0)
        self.scenes = {
            pair.caption: pair.scene if rng.random() < share else Scene(things=()) for pair in PAIRS
        }

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float | None, quality: str
    ) -> list[Image.Image]:
        return [Image.fromarray(draw_scene(self.scenes[prompt])) for prompt in prompts]


def make(out: Path, bridge: ImageGenerator, **options: Any) -> Path:
    evaluate(bridge, "world", out, **{"categories": ("one", "two"), "limit": 12, **options})
    return out


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("compared")
    return make(root / "good", Sometimes(0.9)), make(root / "bad", Sometimes(0.3))


def test_the_difference_is_that_of_the_means_and_turns_round(two: tuple[Path, Path]) -> None:
    found = compare_evaluations(*two)["metrics"]["world"]
    means = [
        json.loads((folder / "results.json").read_text())["metrics"]["world"]["all"]["mean"] for folder in two
    ]
    assert found["all"]["mean"] == pytest.approx(means[0] - means[1])
    assert found["all"]["low"] > 0
    assert found["all"]["p"] < 0.05
    assert set(found) == {"all", "one", "two"}
    back = compare_evaluations(two[1], two[0])["metrics"]["world"]["all"]
    assert back["mean"] == pytest.approx(-found["all"]["mean"])
    same = compare_evaluations(two[0], two[0])["metrics"]["world"]["all"]
    assert (same["mean"], same["p"]) == (0, 1)


def test_what_only_one_has_is_left_out_and_counted(two: tuple[Path, Path], tmp_path: Path) -> None:
    few = make(tmp_path / "few", Sometimes(0.9), limit=5)
    found = compare_evaluations(few, two[1])
    assert found["pictures"] == 10
    assert found["unpaired"] == {"first": 0, "second": 14}


def test_numbers_that_do_not_mean_the_same_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"seed is 0 in the first and 5"):
        compare_evaluations(two[0], make(tmp_path / "seed", Sometimes(0.9), seed=5, limit=2))
    with pytest.raises(RunError, match=r"holds no results\.json"):
        compare_evaluations(two[0], tmp_path)
    other = make(tmp_path / "other", Sometimes(0.9), limit=2)
    path = other / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps({**results, "version": 2}))
    with pytest.raises(RunError, match="version is 1 in the first and 2"):
        compare_evaluations(two[0], other)
    results["metrics"]["world"]["card"]["version"] = 7
    path.write_text(json.dumps(results))
    with pytest.raises(RunError, match="their cards differ"):
        compare_evaluations(two[0], other)
    path.write_text(json.dumps({"categories": {}}))
    with pytest.raises(RunError, match="older version"):
        compare_evaluations(two[0], other)


def test_the_command_prints_lines_or_json(two: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(app, ["compare", *map(str, two)])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith("world all  n    24  +0.")
    done = CliRunner().invoke(app, ["compare", *map(str, two), "--json"])
    assert json.loads(done.stdout) == compare_evaluations(*two)


def test_p_of_few_differences_is_counted_out() -> None:
    values = [0.5, -0.25, 1.0, 0.75, 0.0]
    total = abs(sum(values))
    signs = list(product((1, -1), repeat=5))
    expected = sum(abs(sum(s * v for s, v in zip(each, values, strict=True))) >= total for each in signs) / 32
    assert sign_flip_p(values) == pytest.approx(expected)
    assert math.isnan(sign_flip_p([]))


def test_p_is_even_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    found = [sign_flip_p(list(rng.normal(size=30))) for _ in range(60)]
    assert 0.35 < np.mean(found) < 0.65
    assert 0 < sign_flip_p([1.0] * 30) < 0.001


def test_any_statistic_has_an_interval_over_prompts() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, 1.0, size=200)
    low, high = bootstrap_interval_of(
        [[float(v)] for v in values], lambda rows: float(np.mean([r[0] for r in rows]))
    )
    half = 1.96 * values.std() / math.sqrt(200)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert all(math.isnan(bound) for bound in bootstrap_interval_of([1, 2], lambda rows: math.nan))
