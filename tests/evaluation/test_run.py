"""Evaluation end to end with drawers that know the answer: perfect, blind, stopped halfway, and in parts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.core.errors import DataError, ModelError, RecipeError, RunError
from lavibridge.core.process_rank import ProcessRank, rank_from_environment
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.suite import open_suite_prompts, read_suite
from lavibridge.evaluation.tasks import make_tasks, task_noise_seed
from lavibridge.generation.nonfinite_images import NonfiniteImageError
from lavibridge.world.captions import CATEGORIES, evaluation_prompts
from lavibridge.world.drawing import draw_scene
from lavibridge.world.scene import Scene

PAIRS = [pair for category in CATEGORIES for pair in evaluation_prompts(category, 4)]
MINI_CLIP = {"kind": "clip_score", "model": "mini-clip"}


class Drawer:
    """Draws each prompt's own scene, or (`blind`) an empty ground; stops after `patience` pictures."""

    origin: ClassVar[dict[str, str]] = {"model": "drawn"}
    distilled_guidance_scale: ClassVar[float | None] = None

    def __init__(self, blind: bool = False, patience: int = 10_000) -> None:
        self.scenes = {pair.caption: Scene(things=()) if blind else pair.scene for pair in PAIRS}
        self.patience = patience
        self.drawn: list[tuple[str, int]] = []

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float | None, quality: str
    ) -> list[Image.Image]:
        if len(self.drawn) + len(prompts) > self.patience:
            raise KeyboardInterrupt
        self.drawn += zip(prompts, seed, strict=True)
        return [Image.fromarray(draw_scene(self.scenes[prompt])) for prompt in prompts]


def world(results: dict[str, Any]) -> dict[str, Any]:
    return results["metrics"]["world"]["categories"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_perfect_drawer_is_perfect(tmp_path):
    results = evaluate(Drawer(), "world", tmp_path, limit=2)
    assert set(world(results)) == set(CATEGORIES)
    assert results["n"] == results["metrics"]["world"]["all"]["n"] == 2 * len(CATEGORIES)
    assert results["bridge"] == Drawer.origin
    for score in world(results).values():
        assert score["mean"] == 1
        assert score["low"] < 1
        assert all(clause["mean"] == 1 for clause in score["clauses"].values())
    assert results == json.loads((tmp_path / "results.json").read_text())
    assert results["metrics"]["world"]["card"] == {"kind": "world", "version": 1, "options": {}}
    records = read_lines(tmp_path / "records.jsonl")
    assert len(records) == len({record["file"] for record in records}) == 2 * len(CATEGORIES)
    for record in records:
        assert record["scores"] == {"world": 1}
        with Image.open(tmp_path / record["file"]) as picture:
            picture.load()
            assert picture.info["prompt"] == record["prompt"]


@pytest.mark.parametrize("line", ["a wall clock (showing 10:30)", "(aspect ratio 16:9)", "a (red:3) cat"])
def test_brackets_in_a_suite_are_text(tmp_path: Path, line: str) -> None:
    toy = {"source": "random"}
    bridge = Bridge.compose({"kind": "t5", **toy}, {"kind": "pixart", **toy}, "linear", None, None).eval()
    (tmp_path / "lines.txt").write_text(f"{line}\n")
    prompts = {"kind": "lines", "path": "lines.txt"}
    suite = {"name": "own", "version": 1, "prompts": prompts, "seeds": 1, "steps": 2, "guidance": 3.0}
    suite["metrics"] = [MINI_CLIP]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(suite))
    evaluate(bridge, str(tmp_path / "own.yaml"), tmp_path / "out", prompts=str(tmp_path / "lines.txt"))
    (record,) = read_lines(tmp_path / "out" / "records.jsonl")
    escaped = line.replace("(", r"\(").replace(")", r"\)")
    (expected,) = BridgePipeline(bridge)(
        escaped, num_inference_steps=2, guidance_scale=3.0, seed=record["seed"], prompt_weighting=True
    ).images
    with Image.open(tmp_path / "out" / record["file"]) as drawn:
        assert drawn.tobytes() == expected.tobytes()


def test_a_blind_drawer_scores_nothing(tmp_path):
    results = evaluate(Drawer(blind=True), "world", tmp_path, categories=("one", "negation"), limit=4)
    assert list(world(results)) == ["one", "negation"]
    assert world(results)["one"]["mean"] == 0
    assert world(results)["one"]["high"] > 0
    assert world(results)["negation"]["clauses"]["absence"]["mean"] == 1


class Overflowing(Drawer):
    """Has no numbers for the prompts that it is told."""

    def __init__(self, lost: set[str]) -> None:
        super().__init__()
        self.lost = lost

    def generate(self, prompts: Sequence[str], *rest: Any, **options: Any) -> list[Image.Image]:
        pictures = super().generate(prompts, *rest, **options)
        reasons = {place: OVERFLOW for place, prompt in enumerate(prompts) if prompt in self.lost}
        if reasons:
            kept = [None if place in reasons else picture for place, picture in enumerate(pictures)]
            raise NonfiniteImageError(prompts, kept, reasons)
        return pictures


OVERFLOW = "the latents are not finite"


def test_what_cannot_be_drawn_is_null_with_its_reason(tmp_path):
    """In records, results, sets and comparisons: counted and named, neither 0 nor left out."""
    lost = {pair.caption for pair in evaluation_prompts("one", 1)}
    evaluate(Drawer(), "world", tmp_path / "good", limit=2)
    kid = {"kind": "kid", "reference": str(tmp_path / "good/images"), "features": "mini-resnet"}
    drawer = Overflowing(lost)
    results = evaluate(drawer, "world", tmp_path / "bad", limit=2, metrics=[kid])
    (record,) = [each for each in read_lines(tmp_path / "bad" / "records.jsonl") if each["prompt"] in lost]
    assert record["scores"] == {"world": None}
    assert record["undrawn"] == OVERFLOW
    assert record["reasons"] == {"world": f"not drawn: {OVERFLOW}"}
    assert not (tmp_path / "bad" / record["file"]).exists()
    assert results["undrawn"] == {OVERFLOW: 1}
    of_world = results["metrics"]["world"]
    assert (world(results)["one"]["n"], world(results)["one"]["unscored"]) == (1, 1)
    assert (world(results)["one"]["mean"], of_world["unscored"]) == (1, {f"not drawn: {OVERFLOW}": 1})
    of_sets = results["metrics"]["kid"]
    assert of_sets["unscored"] == {f"not drawn: {OVERFLOW}": 1}
    assert {each["n"] for each in of_sets["totals"].values()} == {2 * len(CATEGORIES) - 1}
    again = Overflowing(lost)
    assert evaluate(again, "world", tmp_path / "bad", limit=2, metrics=[kid]) == results
    assert len(again.drawn) == 1  # to see that it is the same bridge
    found = compare_evaluations(tmp_path / "bad", tmp_path / "good")["metrics"]["world"]["one"]
    assert (found["n"], found["unscored"]) == (1, 1)


def test_goes_on_where_it_stopped(tmp_path):
    first = Drawer(patience=40)
    with pytest.raises(KeyboardInterrupt):
        evaluate(first, "world", tmp_path / "stopped", limit=3)
    with (tmp_path / "stopped" / "records-0.jsonl").open("a") as file:
        file.write('{"prompt": "a re')
    second = Drawer()
    results = evaluate(second, "world", tmp_path / "stopped", limit=3)
    assert 0 < len(first.drawn) < 3 * len(CATEGORIES)
    assert len(first.drawn) + len(second.drawn) == 3 * len(CATEGORIES) + 1  # one is drawn again to compare
    assert results == evaluate(Drawer(), "world", tmp_path / "whole", limit=3)
    assert [path.name for path in tmp_path.glob("*/records*")] == ["records.jsonl", "records.jsonl"]


def test_processes_share_the_work_and_the_last_puts_it_together(tmp_path):
    asked = {"limit": 2, "metrics": [MINI_CLIP]}
    drawers = [Drawer() for _ in range(3)]
    found = [
        evaluate(drawer, "world", tmp_path / "parts", part=ProcessRank(rank=rank, world_size=3), **asked)
        for rank, drawer in enumerate(drawers)
    ]
    assert found[0] == {"waiting": 18}
    assert found[1] == {"waiting": 9}
    alone = evaluate(Drawer(), "world", tmp_path / "alone", **asked)["metrics"]
    together = found[2]["metrics"]
    assert together["world"] == alone["world"]
    assert together["clip_score"]["all"] == pytest.approx(alone["clip_score"]["all"], abs=1e-5)
    assert sum(len(drawer.drawn) for drawer in drawers) == 2 * len(CATEGORIES)
    assert not list((tmp_path / "parts").glob("records-*"))


def test_another_number_of_processes_goes_on(tmp_path):
    """Drawn by the last of three, judged by the first of two, and by a metric that was set up otherwise."""
    asked = {"categories": ("one", "two", "counting"), "limit": 4}
    evaluate(
        Drawer(), "world", tmp_path, part=ProcessRank(rank=2, world_size=3), metrics=[MINI_CLIP], **asked
    )
    other = {**MINI_CLIP, "long": "segments"}
    first = evaluate(
        Drawer(), "world", tmp_path, part=ProcessRank(rank=0, world_size=2), metrics=[other], **asked
    )
    assert first == {"waiting": 6}
    results = evaluate(
        Drawer(), "world", tmp_path, part=ProcessRank(rank=1, world_size=2), metrics=[other], **asked
    )
    assert results["n"] == results["metrics"]["clip_score"]["all"]["n"] == 12
    assert len({record["by"]["clip_score"] for record in read_lines(tmp_path / "records.jsonl")}) == 1


def test_a_metric_of_other_categories_is_not_asked(tmp_path):
    absent = {"kind": "clip_score", "model": "mini-clip", "categories": ["two"]}
    results = evaluate(Drawer(), "world", tmp_path, categories=("one",), limit=2, metrics=[absent])
    assert set(results["metrics"]) == {"world"}


def test_a_metric_that_comes_later_draws_nothing(tmp_path):
    chosen = {"categories": ("one",), "limit": 4}
    evaluate(Drawer(), "world", tmp_path, **chosen)
    again = Drawer()
    results = evaluate(again, "world", tmp_path, metrics=[MINI_CLIP], **chosen)
    assert len(again.drawn) == 1  # to see that it is the same bridge
    assert results["metrics"]["world"]["all"]["mean"] == 1
    first = results["metrics"]["clip_score"]
    assert 0 < first["all"]["low"] < first["all"]["mean"] < 1
    record = read_lines(tmp_path / "records.jsonl")[0]
    assert set(record["scores"]) == {"world", "clip_score"}
    other = {**MINI_CLIP, "long": "segments"}  # another card: scored anew
    second = evaluate(Drawer(), "world", tmp_path, metrics=[other], **chosen)["metrics"]["clip_score"]
    assert second["card"] != first["card"]
    assert read_lines(tmp_path / "records.jsonl")[0]["by"] != record["by"]


def test_missing_and_damaged_pictures_are_drawn_again(tmp_path, capsys):
    chosen = {"categories": ("one", "two"), "limit": 4}
    before = evaluate(Drawer(), "world", tmp_path, **chosen)
    lost, cut, *_ = read_lines(tmp_path / "records.jsonl")
    (tmp_path / lost["file"]).unlink()
    (tmp_path / cut["file"]).write_bytes((tmp_path / cut["file"]).read_bytes()[:60])
    again = Drawer()
    assert evaluate(again, "world", tmp_path, **chosen) == before
    assert {prompt for prompt, _ in again.drawn} >= {lost["prompt"], cut["prompt"]}
    assert len(again.drawn) == 3
    assert "generating 2 missing or damaged images again" in capsys.readouterr().err
    data = bytearray((tmp_path / cut["file"]).read_bytes())
    data[40:60] = bytes(20)  # inside, where a look at the end does not find it
    (tmp_path / cut["file"]).write_bytes(data)
    with pytest.raises(DataError, match="delete it, and the next call generates it again"):
        evaluate(Drawer(), "world", tmp_path, metrics=[MINI_CLIP], **chosen)


def test_what_was_drawn_before_and_is_not_asked_for_now_is_kept(tmp_path):
    evaluate(Drawer(), "world", tmp_path, categories=("one", "two"), limit=4)
    fewer = evaluate(Drawer(), "world", tmp_path, categories=("two",), limit=2)
    assert fewer["n"] == 2
    assert len(read_lines(tmp_path / "records.jsonl")) == 8


def test_pictures_of_another_bridge_or_setting_are_refused(tmp_path):
    evaluate(Drawer(), "world", tmp_path, categories=("one",), limit=2)
    with pytest.raises(RunError, match="another bridge"):
        evaluate(Drawer(blind=True), "world", tmp_path, categories=("one",), limit=2)
    with pytest.raises(RunError, match="generated with"):
        evaluate(Drawer(), "world", tmp_path, categories=("one",), limit=2, num_inference_steps=7)


def test_a_drawer_that_draws_too_few_is_refused(tmp_path):
    class Lazy(Drawer):
        def generate(
            self,
            prompts: Sequence[str],
            seed: Sequence[int],
            steps: int,
            guidance: float | None,
            quality: str,
        ) -> list[Image.Image]:
            return super().generate(prompts, seed, steps, guidance, quality)[1:]

    with pytest.raises(RunError, match="return one per prompt"):
        evaluate(Lazy(), "world", tmp_path, limit=1)


def test_clear_errors_before_anything_is_drawn(tmp_path):
    drawer = Drawer()
    for match, error, asked in (
        ("did you mean 'counting'", DataError, {"categories": ("countin",)}),
        ("at least 1", RecipeError, {"limit": 0}),
        ("unknown kind 'clip_scor'; did you mean 'clip_score'", RecipeError, {"metrics": ["clip_scor"]}),
        ("there is no model folder './no'", ModelError, {"metrics": [{**MINI_CLIP, "model": "./no"}]}),
        ("two have the name", RecipeError, {"metrics": [MINI_CLIP, MINI_CLIP]}),
        ("did you mean 'model'", RecipeError, {"metrics": [{"kind": "clip_score", "modl": "x"}]}),
        ("there is no 'tow'", RecipeError, {"metrics": [{**MINI_CLIP, "categories": ["tow"]}]}),
    ):
        with pytest.raises(error, match=match):
            evaluate(drawer, "world", tmp_path, **asked)
    with pytest.raises(RecipeError, match="did you mean 'world'"):
        evaluate(drawer, "wrld", tmp_path)
    assert drawer.drawn == []
    assert not list(tmp_path.iterdir())


def test_records_of_another_form_or_damaged_are_refused(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"prompt": "a red circle", "all": true}\n')
    with pytest.raises(RunError, match="another form"):
        evaluate(Drawer(), "world", tmp_path, limit=1)
    (tmp_path / "records.jsonl").write_text("nonsense\n{}\n")
    with pytest.raises(RunError, match="line 1 is damaged"):
        evaluate(Drawer(), "world", tmp_path, limit=1)


def test_sets_are_measured_against_a_folder_and_share_their_features(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "cache"))
    real = tmp_path / "real"
    real.mkdir()
    for number, pair in enumerate(PAIRS):
        Image.fromarray(draw_scene(pair.scene)).save(real / f"{number}.png")
    options = {"reference": str(real), "features": "mini-resnet", "resize": "model"}
    metrics = [{"kind": kind, **options} for kind in ("fid", "kid", "precision_recall")]
    good = evaluate(Drawer(), "world", tmp_path / "good", limit=2, metrics=metrics)["metrics"]
    assert capsys.readouterr().err.count("features, drawn") == 1
    bad = evaluate(Drawer(blind=True), "world", tmp_path / "bad", limit=2, metrics=metrics)["metrics"]
    assert good["fid"]["card"]["n"] == len(PAIRS)
    assert str(tmp_path) not in json.dumps(good)
    for name in ("fid", "kid"):
        figure = good[name]["totals"][name]
        assert figure["n"] == 2 * len(CATEGORIES)
        assert figure["low"] <= figure["mean"] <= figure["high"] < bad[name]["totals"][name]["mean"]
    assert good["precision_recall"]["totals"]["precision"]["mean"] == 1
    assert bad["precision_recall"]["totals"]["recall"]["mean"] < 0.1
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(3), sigma=np.eye(3))
    narrow = {"kind": "fid", **options, "reference": str(tmp_path / "narrow.npz")}
    with pytest.raises(DataError, match="width 3, but those of 'fid' 96"):
        evaluate(Drawer(), "world", tmp_path / "good", limit=2, metrics=[narrow])


def test_pictures_drawn_elsewhere_are_judged_and_none_is_left_out(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    pairs = [pair for category in ("one", "two") for pair in evaluation_prompts(category, 6)]
    for number, pair in enumerate(pairs):  # 2.png comes before 10.png
        Image.fromarray(draw_scene(pair.scene)).save(given / f"{number}.png")
    asked = {"categories": ("one", "two"), "limit": 6}
    results = evaluate(given, "world", tmp_path / "out", **asked)
    assert results["metrics"]["world"]["all"]["mean"] == 1
    assert (results["n"], results["steps"]) == (12, None)
    (given / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3\.png.*needs every image"):
        evaluate(given, "world", tmp_path / "again", **asked)
    (given / "3.png").unlink()
    with pytest.raises(DataError, match="has 11 images but the suite needs 12"):
        evaluate(given, "world", tmp_path / "again", **asked)
    with pytest.raises(DataError, match="there is no folder"):
        evaluate(tmp_path / "nowhere", "world", tmp_path / "again", **asked)


def test_the_environment_names_the_part(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert rank_from_environment() == ProcessRank(rank=0, world_size=1)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(RunError, match="RANK=2"):
        rank_from_environment()
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert rank_from_environment() == ProcessRank(rank=2, world_size=3)


def test_noise_is_named_by_the_prompt():
    seeds = {task_noise_seed("world", "one", f"prompt {i}", 0, 0) for i in range(100)}
    assert len(seeds) == 100
    assert task_noise_seed("world", "one", "a red circle", 0, 0) == 1991530089


def test_every_category_has_enough_prompts():
    suite = read_suite("world")
    tasks = make_tasks(suite, open_suite_prompts(suite.prompts), None, None, 0)
    assert len(tasks) == len({task.key for task in tasks}) == len({task.file for task in tasks}) == 1750
