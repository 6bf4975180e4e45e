"""What an evaluation keeps is used again for the same bridge only, down to its last weight."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavibridge import Bridge
from lavibridge.bridge import identity as module
from lavibridge.bridge.identity import bridge_identity
from lavibridge.core.errors import DataError, RunError
from lavibridge.core.process_rank import ProcessRank
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.metrics.world import WorldMetric
from lavibridge.world.captions import evaluation_prompts
from lavibridge.world.drawing import draw_scene

ASKED: dict[str, Any] = {"categories": ("one",), "limit": 2, "num_inference_steps": 1, "guidance_scale": 1.0}
OLD = "did not record the bridge"


def make_bridge(
    connector: str | dict[str, Any] = "linear", vision: str = "float32", **language: Any
) -> Bridge:
    torch.manual_seed(0)
    return Bridge.compose(
        language={"kind": "llama", "source": "random", **language},
        vision={"kind": "sd", "source": "random", "dtype": vision},
        connector=connector,
        language_lora={"rank": 2},
        vision_lora={"rank": 2},
    ).eval()


def trained_on(bridge: Bridge) -> Bridge:
    with torch.no_grad():
        next(bridge.connector.parameters()).mul_(1 + 1e-6)
    return bridge


def lora_scaled(bridge: Bridge) -> Bridge:
    layer = next(each for each in bridge.vision.backbone.modules() if hasattr(each, "lora_A"))
    layer.scaling["default"] = 2.0  # type: ignore[index, union-attr]
    return bridge


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the toy bridge; nobody changes it."""
    out = tmp_path_factory.mktemp("kept") / "world"
    evaluate(make_bridge(), "world", out, **ASKED)
    return out


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "copy"))


def test_a_bridge_that_was_trained_on_is_another_however_alike_it_draws(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*.*")}
    with pytest.raises(RunError, match=r"another bridge.*\(changed: connector\): choose another --out"):
        evaluate(trained_on(make_bridge()), "world", copy, **ASKED)
    assert {path: path.read_bytes() for path in copy.rglob("*.*")} == before
    evaluate(make_bridge(), "world", copy, **ASKED)  # made anew, it is the same


def test_every_part_and_format_of_a_bridge_counts() -> None:
    made: dict[str, Callable[[], Bridge]] = {
        "as it is": make_bridge,
        "merged": lambda: make_bridge().merge(),
        "trained on": lambda: trained_on(make_bridge()),
        "LoRA louder": lambda: lora_scaled(make_bridge()),
        "read elsewhere": lambda: make_bridge({"kind": "linear", "read": {"layer": 1}}),
        "fewer tokens": lambda: make_bridge(max_tokens=20),
        "padded": lambda: make_bridge(see_padding=True),
        "language rounded": lambda: make_bridge(dtype="bfloat16"),
        "vision rounded": lambda: make_bridge(vision="bfloat16"),
    }
    found = {name: json.dumps(bridge_identity(build())) for name, build in made.items()}
    assert len(set(found.values())) == len(made)
    assert json.dumps(bridge_identity(make_bridge())) == found["as it is"]


def test_another_library_draws_nothing_more_but_judges_what_is_there(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = dict.fromkeys(module.IDENTITY_LIBRARIES, "99")
    monkeypatch.setattr(module, "library_versions", lambda *names: versions)
    before = json.loads((copy / "results.json").read_text())
    clip = {"kind": "clip_score", "model": "mini-clip"}
    results = evaluate(make_bridge(), "world", copy, **ASKED, metrics=[clip])
    assert "clip_score" in results["metrics"]
    assert results["made_with"] == before["made_with"] != versions
    with pytest.raises(RunError, match="made_with"):
        evaluate(make_bridge(), "world", copy, **{**ASKED, "limit": 3})


def test_what_was_kept_before_the_bridge_was_noted_is_refused(copy: Path) -> None:
    for name in ("settings.json", "results.json"):
        found = json.loads((copy / name).read_text())
        old = {key: each for key, each in found.items() if key not in ("drawn_by", "made_with", "drawn_with")}
        (copy / name).write_text(json.dumps(old))
    with pytest.raises(RunError, match=OLD):
        evaluate(make_bridge(), "world", copy, **ASKED)
    with pytest.raises(RunError, match=OLD):
        compare_evaluations(copy, copy)


def test_pictures_of_two_bridges_in_one_folder_are_found_whoever_put_them_there(
    copy: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    evaluate(
        trained_on(make_bridge()),
        "world",
        other,
        **{**ASKED, "limit": 3},
        part=ProcessRank(rank=2, world_size=3),
    )
    shutil.copy(other / "records-2.jsonl", copy / "records-2.jsonl")  # of a process with another bridge
    for try_it in (
        lambda: evaluate(make_bridge(), "world", copy, **ASKED),
        lambda: compare_evaluations(copy, copy),
    ):
        with pytest.raises(RunError, match="two bridges"):
            try_it()


def test_results_of_pictures_that_were_deleted_are_not_left(copy: Path) -> None:
    shutil.rmtree(copy / "images")
    (copy / "records.jsonl").unlink()
    found = evaluate(
        trained_on(make_bridge()), "world", copy, **ASKED, part=ProcessRank(rank=0, world_size=2)
    )
    assert found == {"waiting": 1}
    with pytest.raises(RunError, match=r"holds no results\.json"):
        compare_evaluations(copy, copy)


def test_a_picture_that_was_replaced_is_not_judged(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted(copy.rglob("*.png"))
    shutil.copy(second, first)
    monkeypatch.setattr(WorldMetric, "version", 2)
    with pytest.raises(DataError, match=r"has changed since it was generated; delete it, and the next call"):
        evaluate(make_bridge(), "world", copy, **ASKED)


def test_scores_under_another_card_are_not_compared(kept: Path, copy: Path) -> None:
    """As a metric that was changed and then stopped halfway leaves them."""
    record, _ = (json.loads(line) for line in (copy / "records.jsonl").read_text().splitlines())
    named = {name: record[name] for name in ("category", "prompt", "seed", "drawing")}
    line = {
        **named,
        "metric": "world",
        "by": "another",
        "score": 1,
        "clauses": {},
        "detail": {},
        "reason": "",
    }
    (copy / "records-0.jsonl").write_text(json.dumps(line) + "\n")
    assert compare_evaluations(copy, kept)["metrics"]["world"]["all"]["mean"] == 0


def test_pictures_drawn_elsewhere_are_known_by_their_bytes(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for number, pair in enumerate(evaluation_prompts("one", 2)):
        Image.fromarray(draw_scene(pair.scene)).save(given / f"{number}.png")
    evaluate(given, "world", tmp_path / "out", categories=("one",), limit=2)
    moved = given.rename(tmp_path / "moved")
    evaluate(moved, "world", tmp_path / "out", categories=("one",), limit=2)
    Image.new("RGB", (64, 64)).save(moved / "1.png")
    with pytest.raises(RunError, match="another bridge"):
        evaluate(moved, "world", tmp_path / "out", categories=("one",), limit=2)
