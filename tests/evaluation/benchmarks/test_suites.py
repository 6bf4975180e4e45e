"""The shipped suites from prompt files to results, drawn once a prompt and judged by toys."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import yaml
from PIL import Image

from lavibridge.core.errors import DataError, RecipeError
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.suite import read_suite

TOYS = {
    "b_vqa": {"model": "blip"},
    "spatial": {"detector": "owl"},
    "numeracy": {"detector": "owl"},
    "clip_score": {"model": "clip"},
    "three_in_one": {"model": "blip", "detector": "owl", "clip": "clip"},
    "geneval": {"detector": "yolos", "clip": "clip"},
    "dpg": {"model": "llava", "dtype": "float32"},
    "soft_tifa": {"model": "llava", "dtype": "float32"},
    "vqa_score": {"model": "llava", "dtype": "float32"},
    "wise": {"model": "llava", "dtype": "float32"},
}


class Noise:
    """Draws each prompt as the noise of its seed."""

    origin: ClassVar[dict[str, str]] = {"model": "drawn"}
    distilled_guidance_scale: ClassVar[float | None] = None

    def generate(
        self, prompts: Sequence[str], seed: Sequence[int], steps: int, guidance: float | None, quality: str
    ) -> list[Image.Image]:
        return [
            Image.fromarray(np.random.default_rng(each).integers(0, 256, (64, 64, 3), dtype=np.uint8))
            for each in seed
        ]


@pytest.fixture
def with_toys(toy, tmp_path):
    """A shipped suite with toys in place of its networks, one picture a prompt."""

    def made(name: str) -> str:
        suite = read_suite(name).model_dump()
        metrics = [{"kind": each} if isinstance(each, str) else dict(each) for each in suite["metrics"]]
        for metric in metrics:
            options = TOYS[metric["kind"]]
            metric |= {key: value if key == "dtype" else toy(value) for key, value in options.items()}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**suite, "metrics": metrics, "seeds": 1}))
        return str(path)

    return made


def test_geneval(with_toys, tmp_path):
    prompts = tmp_path / "metadata.jsonl"
    records = [
        {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a photo of a cat"},
        {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "dogs, a/b\n😀"},
        {"tag": "colors", "include": [{"class": "zebra", "count": 1, "color": "red"}], "prompt": "a zebra"},
    ]
    prompts.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    results = evaluate(Noise(), with_toys("geneval"), tmp_path / "out", prompts=str(prompts))
    found = results["metrics"]["geneval"]
    assert found["all"]["n"] == 2
    assert found["unscored"] == {"the detector does not know 'zebra'": 1}
    assert found["totals"]["mean of tasks"]["n"] == 2
    assert set(found["categories"]["single_object"]["clauses"]) == {"there"}
    assert found["card"]["detector"]["model"] == "yolos"


def test_compbench(with_toys, tmp_path):
    texts = {
        "color_val": "a red cat and a blue bowl",
        "shape_val": "an oval bowl and a round dog",
        "texture_val": "a fluffy cat and a metallic bench",
        "spatial_val": "a cat on the left of a dog",
        "numeracy_val": "two cats and one dog",
        "non_spatial_val": "a cat looks at a dog",
        "complex_val": "The red cat was next to the soft dog.",
        "complex_val_spatial": "The red cat was next to the soft dog.",
        "complex_val_action": "Another prompt.",
        "new_objects": "cat - cats\ndog - dogs",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    results = evaluate(Noise(), with_toys("compbench"), tmp_path / "out", prompts=str(tmp_path))
    judged = {name: set(found["categories"]) for name, found in results["metrics"].items()}
    assert judged == {
        "b_vqa": {"color", "shape", "texture"},
        "spatial": {"spatial"},
        "numeracy": {"numeracy"},
        "clip_score": {"non-spatial"},
        "three_in_one": {"complex"},
    }
    assert all(found["all"]["n"] == len(judged[name]) for name, found in results["metrics"].items())
    complex_ = results["metrics"]["three_in_one"]["categories"]["complex"]
    assert set(complex_["clauses"]) == {"attributes", "spatial"}


def test_dpg_and_geneval2(with_toys, tmp_path):
    columns = "item_id,text,proposition_id,dependency,tuple,question_natural_language"
    rows = "a,A cat.,1,0,entity - whole (cat),Is there a cat?\na,A cat.,2,1,global,Is it a photo?\n"
    (tmp_path / "dpg_bench.csv").write_text(f"{columns}\n{rows}")
    dense = evaluate(Noise(), with_toys("dpg"), tmp_path / "dense", prompts=str(tmp_path))
    assert set(dense["metrics"]["dpg"]["totals"]) == {"entity", "global"}
    atoms = {
        "prompt": "two cats",
        "atom_count": 3,
        "vqa_list": [["How many cats?", "two"], ["Are there cats?", "Yes"]],
        "skills": ["count", "object"],
    }
    (tmp_path / "atoms.jsonl").write_text(json.dumps(atoms))
    results = evaluate(
        Noise(), with_toys("geneval2"), tmp_path / "atoms", prompts=str(tmp_path / "atoms.jsonl")
    )
    tifa = results["metrics"]["soft_tifa"]
    assert set(tifa["totals"]) == {"count", "object"}
    assert set(tifa["categories"]) == {"3 atoms"}
    assert tifa["all"]["mean"] <= tifa["categories"]["3 atoms"]["clauses"]["arithmetic mean"]["mean"]
    assert results["metrics"]["vqa_score"]["all"]["n"] == 1


def test_wise(with_toys, tmp_path):
    records = [{"prompt_id": each, "Prompt": f"a {each}", "Explanation": "b"} for each in (1, 2, 500)]
    (tmp_path / "merge.json").write_text(json.dumps(records))
    results = evaluate(Noise(), with_toys("wise"), tmp_path / "out", prompts=str(tmp_path))
    found = results["metrics"]["wise"]
    assert {name: each["n"] for name, each in found["categories"].items()} == {"culture": 2, "time": 1}
    assert "totals" not in found, "four categories have no score"


@pytest.mark.parametrize(
    ("suite", "pictures"), [("compbench", 10), ("dpg", 4), ("geneval", 4), ("geneval2", 1), ("wise", 1)]
)
def test_as_many_pictures_as_published(suite, pictures):
    assert read_suite(suite).seeds == pictures


def test_what_a_benchmark_cannot_judge_is_said_before_anything_is_drawn(with_toys, tmp_path):
    with pytest.raises(DataError, match=r"github\.com/djghosh13/geneval"):
        evaluate(Noise(), with_toys("geneval"), tmp_path / "out")
    suite = tmp_path / "mixed.yaml"
    toys = yaml.safe_load(Path(with_toys("geneval")).read_text())["metrics"]
    text = {"name": "mixed", "version": 1, "prompts": {"kind": "world", "categories": {"one": 1}}}
    suite.write_text(yaml.safe_dump({**text, "metrics": toys}))
    with pytest.raises(DataError, match="needs prompts of kind 'geneval'"):
        evaluate(Noise(), str(suite), tmp_path / "out")
    assert not (tmp_path / "out" / "images").exists()
    suite.write_text(yaml.safe_dump({**text, "metrics": [{**toys[0], "threshold": 2}]}))
    with pytest.raises(RecipeError, match="threshold"):
        evaluate(Noise(), str(suite), tmp_path / "out")
