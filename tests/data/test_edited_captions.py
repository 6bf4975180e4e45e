"""Prefix, trigger, shuffled and dropped tags, and repeats: what a visit sees, again and again the same."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavibridge.core.errors import RecipeError
from lavibridge.data.base import Dataset

Open = Callable[..., Dataset]
TAGS = "1girl, red hair, smile, outdoors, sky"


@pytest.fixture
def folder(tmp_path: Path, put: Any) -> Path:
    put(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(TAGS)
    put(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("a photo of SKS dog, grass")
    return tmp_path


def seen(dataset: Dataset, index: int, seed: int) -> str:
    return dataset.visit_caption(index, dataset.sample(index).captions[0], seed)


def test_a_prefix_and_a_trigger_come_first_once(folder: Path, opened: Open) -> None:
    dataset = opened("folder", path=folder, prefix="photo: ", trigger="sks")
    assert [dataset.sample(index).captions for index in range(2)] == [
        (f"photo: sks, {TAGS}",),
        ("photo: a photo of SKS dog, grass",),
    ]
    assert seen(dataset, 0, 5) == f"photo: sks, {TAGS}"
    plain = opened("folder", path=folder)
    assert plain.sample(0).captions == (TAGS,)
    assert plain.fingerprint() == dataset.fingerprint(), "the same pictures and captions, checked once"


def test_tags_are_shuffled_and_dropped_by_the_visit_s_seed(folder: Path, opened: Open) -> None:
    options = {"shuffle_tags": True, "tag_dropout": 0.3, "keep_tags": 1, "trigger": "sks", "prefix": "x "}
    dataset = opened("folder", path=folder, **options)
    captions = [seen(dataset, 0, seed) for seed in range(400)]
    assert captions == [seen(dataset, 0, seed) for seed in range(400)]
    assert len(set(captions)) > 30
    counts: Counter[str] = Counter()
    for caption in captions:
        tags = caption.removeprefix("x ").split(", ")
        assert caption.startswith("x sks, 1girl")
        assert set(tags) <= {"sks", *TAGS.split(", ")}
        assert len(set(tags)) == len(tags)
        counts.update(tags)
    for tag in ("red hair", "smile", "outdoors", "sky"):
        assert 0.6 < counts[tag] / 400 < 0.8
    others = [seen(dataset, 1, seed) for seed in range(50)]
    assert all("SKS dog" in caption for caption in others), "the trigger is never left out"
    only = opened("folder", path=folder, shuffle_tags=True)
    assert {frozenset(seen(only, 0, seed).split(", ")) for seed in range(20)} == {frozenset(TAGS.split(", "))}


def test_parts_of_a_mixture_have_their_own_edits_and_repeats(folder: Path, opened: Open) -> None:
    first = {"kind": "folder", "path": str(folder), "repeats": 3, "trigger": "sks"}
    second = {"kind": "world", "scenes": 4, "repeats": 1}
    dataset = opened("mixture", parts=[first, second], prefix="all ")
    assert [part.weight for part in dataset.parts()] == [3 * 2, 4]
    assert dataset.sample(0).captions == (f"all sks, {TAGS}",)
    assert dataset.sample(3).captions[0].startswith("all ")
    assert "sks" not in dataset.sample(3).captions[0]
    for parts, message in (
        ([first, {**second, "repeats": 0}], "whole number from 1, found 0"),
        ([first, {**second, "repeats": 1.5}], "whole number from 1, found 1.5"),
        ([first, {"kind": "world", "scenes": 4}], "give every part repeats, or none"),
        ([{**first, "weight": 1}, {**second, "weight": 1}], "no weights beside them"),
    ):
        with pytest.raises(RecipeError, match=message):
            opened("mixture", parts=parts)
