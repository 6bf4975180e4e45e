"""What report.json holds, for runs that are whole and for runs that are not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("matplotlib")

from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.core.errors import RunError
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.evaluation.records import read_records
from lavibridge.report.embedded_images import EMBEDDED_SIDE, embed_image
from lavibridge.report.page import write_report
from lavibridge.report.report_contents import make_report_contents, read_report_runs
from lavibridge.report.run_record import read_run

Runs = tuple[Path, Path]
Copy = Callable[[Path], Path]


def told_of(*folders: Path) -> dict[str, Any]:
    return make_report_contents(read_report_runs(folders))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}))


def test_differences_are_those_of_lavi_compare(evaluated: Runs) -> None:
    told = told_of(*evaluated)
    expected = compare_evaluations(*(folder / "evaluation" / "world" for folder in evaluated))
    assert [each["metric"] for each in told["differences"]] == list(expected["metrics"])
    for each in told["differences"]:
        assert (each["first"], each["second"]) == ("first", "second")
        assert {row["name"]: row["mean"] for row in each["rows"]} == {
            name: row["mean"] for name, row in expected["metrics"][each["metric"]].items()
        }


def test_tables_hold_what_evaluation_wrote(evaluated: Runs) -> None:
    told = told_of(*evaluated)
    results = [json.loads((folder / "evaluation/world/results.json").read_text()) for folder in evaluated]
    table = next(each for each in told["tables"] if each["metric"] == "world")
    assert [column["label"] for column in table["columns"]] == ["first", "second"]
    for place, each in enumerate(results):
        cells = {row["name"]: row["cells"][place] for row in table["rows"]}
        assert cells["all"] == each["metrics"]["world"]["all"]
        assert cells["one"]["mean"] == each["metrics"]["world"]["categories"]["one"]["mean"]
    assert {card["metric"]: card["model"] for card in told["cards"]} == {
        "world": "",
        "clip_score": "mini-clip",
    }
    assert len(next(card["identity"] for card in told["cards"] if card["model"])) == 64


def test_the_same_prompts_stand_side_by_side_and_cases_are_sorted(evaluated: Runs) -> None:
    told = told_of(*evaluated)
    for row in told["side_by_side"][0]["rows"]:
        assert [one["by"] for one in row["shown"]] == ["first", "second"]
        for one, folder in zip(row["shown"], evaluated, strict=True):
            record = read_records(folder / "evaluation" / "world")[
                row["category"], row["prompt"], row["seed"]
            ]
            assert one["file"] == f"evaluation/world/{record.file}"
            scores = {score["metric"]: score["score"] for score in one["scores"]}
            assert scores == record.scores
    for each in told["extremes"]:
        scores = {
            side: [
                score["score"]
                for case in each[side]
                for score in case["shown"][0]["scores"]
                if score["metric"] == each["metric"]
            ]
            for side in ("worst", "best")
        }
        assert scores["worst"] == sorted(scores["worst"])
        assert scores["best"] == sorted(scores["best"], reverse=True)
        assert max(scores["worst"]) <= min(scores["best"])
    disputed = next(each for each in told["disputed"] if each["metric"] == "clip_score")
    assert disputed["first_ahead_of"] + disputed["second_ahead_of"] + disputed["ties"] == 6


def test_the_quickstarts_conditions_are_told_apart_and_paired(evaluated: Runs, copied: Copy) -> None:
    folder = copied(evaluated[1])
    shutil.move(folder / "evaluation" / "world", folder / "conditions" / "trained")
    shutil.copytree(evaluated[0] / "evaluation" / "world", folder / "conditions" / "untrained")
    own, other = (
        json.loads((folder / "conditions" / name / "results.json").read_text())
        for name in ("trained", "untrained")
    )
    notes = told_of(folder)["notes"]
    assert sum("is unfinished" in note for note in notes) == 2, "which is which is known at the end only"
    (folder / "results.json").write_text(json.dumps({**own, "compared": {"untrained bridge": other}}))
    told = told_of(folder)
    labels = [column["label"] for column in told["tables"][0]["columns"]]
    assert labels == ["this bridge", "untrained bridge"]
    assert {(each["first"], each["second"]) for each in told["differences"]} == {tuple(labels)}
    assert {each["by"] for each in told["extremes"]} == {"this bridge"}
    shutil.rmtree(folder / "conditions")
    bare = told_of(folder)
    assert bare["tables"] == told["tables"], "results.json alone has the same figures"
    assert not bare["differences"] + bare["side_by_side"]


@pytest.mark.parametrize(
    "changed", [{"version": 2}, {"seed": 5}, {"prompts": {"kind": "lines", "sha256": "0"}}]
)
def test_what_does_not_mean_the_same_is_put_apart_and_says_so(
    evaluated: Runs, copied: Copy, changed: dict[str, Any]
) -> None:
    folder = copied(evaluated[1])
    change(folder / "evaluation" / "world" / "results.json", **changed)
    told = told_of(evaluated[0], folder)
    assert all(len(table["columns"]) == 1 for table in told["tables"])
    assert not told["differences"]
    (note,) = told["notes"]
    assert f"{next(iter(changed))} is " in note
    assert "evaluate one of them again" in note


def test_scores_under_another_card_make_another_table(evaluated: Runs, copied: Copy) -> None:
    folder = copied(evaluated[1])
    path = folder / "evaluation" / "world" / "results.json"
    metrics = json.loads(path.read_text())["metrics"]
    metrics["world"]["card"]["version"] = 99
    change(path, metrics=metrics)
    told = told_of(evaluated[0], folder)
    assert [len(table["columns"]) for table in told["tables"] if table["metric"] == "world"] == [1, 1]
    assert {each["metric"] for each in told["disputed"]} == {"clip_score"}
    assert any("'world' is not the same metric in first and second" in note for note in told["notes"])


def test_missing_pictures_are_counted_and_corrupt_ones_named(evaluated: Runs, copied: Copy) -> None:
    folder = copied(evaluated[1])
    page = folder / "report.html"
    (folder / "log.jsonl").unlink()  # charts take time, and are none of this
    pictures = sorted((folder / "evaluation" / "world" / "images").rglob("*.png"))
    pictures[0].unlink()
    text = write_report([folder], page).read_text(encoding="utf-8")
    assert "1 images are missing" in text
    assert "This picture is missing from the run folder." in text
    before = page.read_bytes(), page.with_suffix(".json").read_bytes()
    pictures[1].write_bytes(pictures[1].read_bytes()[:100])
    with pytest.raises(RunError, match=f"{pictures[1].name}.*delete it"):
        write_report([folder], page)
    assert (page.read_bytes(), page.with_suffix(".json").read_bytes()) == before
    assert not list(folder.glob(".*partial"))


def test_a_prompt_of_any_text_stays_text(evaluated: Runs, copied: Copy) -> None:
    folder = copied(evaluated[1])
    (folder / "log.jsonl").unlink()
    records = folder / "evaluation" / "world" / "records.jsonl"
    lines = [json.loads(line) for line in records.read_text(encoding="utf-8").splitlines()]
    lines[0]["prompt"] = '<script>alert("a, b/c")</script>\n\N{SNOWMAN} ' + 10_000 * "long "
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_report([folder], folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\N{SNOWMAN}" in text


def test_runs_that_are_not_whole_say_what_they_lack(evaluated: Runs, copied: Copy) -> None:
    folder = copied(evaluated[1])
    results = folder / "evaluation" / "world" / "results.json"
    older = results.with_name("older.json")
    results.rename(older)
    log = folder / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-2]) + '{"step": 5, "lo')
    told = told_of(folder)
    assert told["notes"] == [
        "second is unfinished: still training, or interrupted",
        "second: evaluation/world is unfinished (6 images), so the report omits it: repeat the "
        "command to resume it",
        "second has no evaluation: run `lavi evaluate` to make one",
    ]
    assert "Training is not finished" in told["runs"][0]["model_card"]
    results.write_text(json.dumps({"suite": "world", "version": 1, "categories": {}}))
    assert any("an older version of lavibridge wrote" in note for note in told_of(folder)["notes"])
    results.write_text("{")
    with pytest.raises(RunError, match=r"results\.json is not valid JSON"):
        told_of(folder)


def test_runs_of_one_name_are_told_apart_and_none_is_taken_twice(run: Path, tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(run, tmp_path / above / "run")) for above in ("a", "b")]
    assert [each.name for each in read_report_runs(folders)] == ["a/run", "b/run"]
    with pytest.raises(RunError, match="appears twice"):
        read_report_runs([run, run / ".." / run.name])
    with pytest.raises(RunError, match="at least one"):
        read_report_runs([])
    with pytest.raises(RunError, match=r"another suffix"):
        write_report([run], tmp_path / "report.json")


def test_a_large_picture_is_scaled_down_and_a_small_one_left_alone(tmp_path: Path) -> None:
    Image.new("RGB", (1000, 500), "red").save(tmp_path / "large.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "small.png")
    large, small = embed_image(tmp_path / "large.png"), embed_image(tmp_path / "small.png")
    assert (large.width, large.height) == (EMBEDDED_SIDE, EMBEDDED_SIDE // 2)
    assert large.source.startswith("data:image/webp")
    assert small.is_small
    assert not large.is_small


def test_a_resumed_log_counts_each_step_once_and_a_cut_last_line_is_left_out(run: Path, copied: Copy) -> None:
    folder = copied(run)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"step": 5, "loss": 0.125}\n{"step": 7, "lo')
    rows = read_run(folder).rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[4]["loss"] == 0.125


@pytest.mark.parametrize(
    ("name", "content"),
    [("results.json", "{"), ("results.json", "[]"), ("log.jsonl", "{\n{}\n"), ("recipe.yaml", "a: [")],
)
def test_errors_name_the_file(run: Path, copied: Copy, name: str, content: str) -> None:
    folder = copied(run)
    (folder / name).write_text(content)
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        told_of(folder)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder.*recipe\.yaml"):
        read_run(tmp_path)
    with pytest.raises(RunError, match="is not a folder"):
        read_run(tmp_path / "nothing")


def test_what_an_earlier_checkpoint_scored_stands_under_its_name(evaluated: Runs, copied: Copy) -> None:
    folder = copied(evaluated[0])
    newest = folder / "checkpoints" / "step-6"
    place = newest / ("ema" if (newest / "ema").is_dir() else "bridge")
    bridge = Bridge.from_pretrained(place)
    with torch.no_grad():
        next(bridge.connector.parameters()).add_(1e-6)
    bridge.save_pretrained(place)  # as after more training
    told = told_of(folder)
    labels = {column["label"] for table in told["tables"] for column in table["columns"]}
    assert labels == {"another checkpoint (step-6)"}
    assert not told["extremes"]
    assert "Not evaluated." in told["runs"][0]["model_card"]
