"""Evaluation end to end with drawers that know the answer: perfect, blind, and stopped halfway."""

import json
from collections.abc import Sequence

import pytest
from PIL import Image

from lavibridge.core.errors import DataError, RecipeError, RunError
from lavibridge.evaluation.base import noise_seed, read_suite
from lavibridge.evaluation.run import evaluate
from lavibridge.world.captions import CATEGORIES, prompts
from lavibridge.world.drawing import draw
from lavibridge.world.scene import Scene

PAIRS = [pair for category in CATEGORIES for pair in prompts(category, 4)]


class Drawer:
    """Draws each prompt's own scene, or (`blind`) an empty ground; stops after `patience` pictures."""

    def __init__(self, blind: bool = False, patience: int = 10_000) -> None:
        self.scenes = {pair.caption: Scene(things=()) if blind else pair.scene for pair in PAIRS}
        self.patience = patience
        self.drawn: list[tuple[str, int]] = []

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float
    ) -> list[Image.Image]:
        if len(self.drawn) + len(prompts) > self.patience:
            raise KeyboardInterrupt
        self.drawn += zip(prompts, seed, strict=True)
        return [Image.fromarray(draw(self.scenes[prompt])) for prompt in prompts]


def test_a_perfect_drawer_is_perfect(tmp_path):
    results = evaluate(Drawer(), "world", tmp_path, limit=3)
    assert set(results["categories"]) == set(CATEGORIES)
    assert results["n"] == 3 * len(CATEGORIES)
    for score in results["categories"].values():
        assert score["mean"] == 1
        assert score["low"] < 1
        assert all(clause["mean"] == 1 for clause in score["clauses"].values())
    assert results == json.loads((tmp_path / "results.json").read_text())
    records = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    assert all(record["all"] is True for record in records)
    for record in records:
        with Image.open(tmp_path / record["file"]) as picture:
            picture.load()
            assert picture.info["prompt"] == record["prompt"]


def test_a_blind_drawer_scores_nothing(tmp_path):
    results = evaluate(Drawer(blind=True), "world", tmp_path, categories=("one", "negation"), limit=4)
    assert list(results["categories"]) == ["one", "negation"]
    assert results["categories"]["one"]["mean"] == 0
    assert results["categories"]["one"]["high"] > 0
    assert results["categories"]["negation"]["clauses"]["absence"]["mean"] == 1


def test_goes_on_where_it_stopped(tmp_path):
    first = Drawer(patience=40)
    with pytest.raises(KeyboardInterrupt):
        evaluate(first, "world", tmp_path / "stopped", limit=4)
    with (tmp_path / "stopped" / "records.jsonl").open("a") as file:
        file.write('{"prompt": "a re')
    second = Drawer()
    results = evaluate(second, "world", tmp_path / "stopped", limit=4)
    assert 0 < len(first.drawn) < 4 * len(CATEGORIES)
    assert len(first.drawn) + len(second.drawn) == 4 * len(CATEGORIES) + 1  # one is drawn again to compare
    assert results == evaluate(Drawer(), "world", tmp_path / "whole", limit=4)


def test_pictures_of_another_bridge_or_setting_are_refused(tmp_path):
    evaluate(Drawer(), "world", tmp_path, categories=("one",), limit=2)
    with pytest.raises(RunError, match="another bridge"):
        evaluate(Drawer(blind=True), "world", tmp_path, categories=("one",), limit=2)
    with pytest.raises(RunError, match="drawn with"):
        evaluate(Drawer(), "world", tmp_path, categories=("one",), limit=2, steps=7)


def test_clear_errors(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'world'"):
        evaluate(Drawer(), "wrld", tmp_path)
    with pytest.raises(DataError, match="did you mean 'counting'"):
        evaluate(Drawer(), "world", tmp_path, categories=("countin",))
    with pytest.raises(RecipeError, match="at least 1"):
        evaluate(Drawer(), "world", tmp_path, limit=0)
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nversion: 1\nmetric: word\ncategories: {one: 2}\n")
    with pytest.raises(RecipeError, match="no metric 'word'"):
        evaluate(Drawer(), str(bad), tmp_path)


def test_noise_is_named_by_the_prompt():
    suite = read_suite("world")
    seeds = {noise_seed(suite, "one", f"prompt {i}", 0, 0) for i in range(100)}
    assert len(seeds) == 100
    assert noise_seed(suite, "one", "a red circle", 0, 0) == 1991530089


def test_every_category_has_enough_prompts():
    suite = read_suite("world")
    for category, count in suite.categories.items():
        assert len(prompts(category, count)) == count
