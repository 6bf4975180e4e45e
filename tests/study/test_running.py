"""A study is made, stopped, gone on with, refused, and made again cell by cell: nothing is done twice."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from lavibridge.bridge import Bridge
from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError, RunError
from lavibridge.evaluation.metrics.world import WorldMetric
from lavibridge.study import run_cells
from lavibridge.study.cell_folder import CELL_FILE, cell_folder_differences
from lavibridge.study.cells import choose_cells, expand_cells, load_study
from lavibridge.training.checkpoints.checkpoint import saved_checkpoints

Write = Callable[..., Path]
Lavi = Callable[..., Result]
CELLS = ("llama/seed-0", "llama/seed-1", "bert/seed-0", "bert/seed-1")
NATIVE = [{"name": "own", "native": True, "set": {"vision.source": "mini-sd"}}]


def times(out: Path) -> dict[str, int]:
    """When each file of the cells was written."""
    return {str(path): path.stat().st_mtime_ns for cell in CELLS for path in (out / cell).rglob("*.*")}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(saved_checkpoints(run)[-1] / "bridge" / "connector" / "model.safetensors")


def copied(made: Path, folder: Path) -> Path:
    return Path(shutil.copytree(made, folder / "out"))


def test_everything_lies_where_it_is_said_and_a_second_call_makes_nothing_anew(
    made: Path, toy: Path, lavi: Lavi
) -> None:
    before = times(made)
    for cell in CELLS:
        assert len(saved_checkpoints(made / cell)) == 2
        assert len((made / cell / "evaluation/world/records.jsonl").read_text().splitlines()) == 4
    again = lavi(toy, "--out", made)
    assert again.stdout == (made / "table.md").read_text()
    assert times(made) == before


def test_commands_print_one_for_each_cell_and_each_makes_its_own(
    toy: Path, lavi: Lavi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "with a space"
    lines = lavi(toy, "--commands", "--out", out).stdout.splitlines()
    assert len(lines) == len(CELLS)
    for line, cell in zip(lines, CELLS, strict=True):
        verb, *arguments = shlex.split(line)
        assert verb == "lavi"
        assert arguments == ["study", str(toy), "--only", cell, "--out", str(out)]
    monkeypatch.chdir(tmp_path)  # from any folder
    done = CliRunner().invoke(app, shlex.split(lines[2])[1:])
    assert (done.exit_code, done.stdout) == (0, ""), "the table is left to --table"
    assert [path.parent.relative_to(out).as_posix() for path in out.rglob(CELL_FILE)] == ["bert/seed-0"]
    text = lavi(toy, "--table", "--out", out).stdout
    assert "Not finished: llama/seed-0, llama/seed-1, bert/seed-1." in text
    assert "2 x 1 seed" in text


def test_a_cell_that_was_stopped_goes_on_to_the_same_weights(
    made: Path, toy: Path, lavi: Lavi, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    cell = out / "llama/seed-0"
    wanted = weights(cell)
    shutil.rmtree(saved_checkpoints(cell)[-1])  # as if killed after the first step, nothing measured yet
    shutil.rmtree(cell / "evaluation")
    (cell / CELL_FILE).unlink()
    assert lavi(toy, "--out", out).exit_code == 0
    assert len(saved_checkpoints(cell)) == 2
    assert all(torch.equal(value, wanted[name]) for name, value in weights(cell).items())
    assert (out / "table.json").read_text() == (made / "table.json").read_text()


def test_a_folder_with_another_recipe_is_refused_with_every_difference_and_nothing_is_made(
    made: Path, write_study: Write, lavi: Lavi, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    other = write_study(tmp_path, set={"training.batch": 1, "training.warmup": 2, "training.workers": 2})
    for arguments in ([], ["--table"]):
        with pytest.raises(RunError) as found:
            lavi(other, "--out", out, *arguments)
        assert "llama/seed-0 cannot continue, because of these changes" in str(found.value)
        assert "training.batch was 2, is 1" in str(found.value)
        assert "training.warmup was 1, is 2" in str(found.value)
        assert "workers" not in str(found.value), "how fast it is made is no matter"
    (out / "llama/seed-0" / CELL_FILE).unlink()  # a run of `lavi train` in its place
    with pytest.raises(RunError, match=r"training\.batch was 2, is 1"):
        lavi(other, "--out", out)


def test_a_cell_that_fails_stops_nobody_and_is_named_at_the_end(
    made: Path, write_study: Write, lavi: Lavi, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    shutil.rmtree(out / "llama")
    broken = {"name": "llama", "set": {"vision.source": "mini-nothing"}}
    bert = {"name": "bert", "set": {"language.kind": "bert", "language.source": "random"}}
    path = write_study(tmp_path, axes={"language": [broken, bert]}, seeds=[0])
    with pytest.raises(RunError) as found:
        lavi(path, "--out", out)
    assert str(found.value).startswith("1 of 2 cells failed")
    assert "llama/seed-0: there is no model folder 'mini-nothing'" in str(found.value)
    assert "| – |" in (out / "table.md").read_text(), "the table is made all the same"
    dry = lavi(path, "--dry-run", "--device", "h100", "--only", "llama", "--out", out).stdout
    assert "llama/seed-0  cannot be planned: there is no model folder 'mini-nothing'" in dry
    assert "1 cells, 1 to run: 0.0 min of training on one h100, and 1 that cannot be planned" in dry


@pytest.mark.slow
def test_a_dry_run_says_what_each_cell_takes_and_what_is_done(made: Path, toy: Path, lavi: Lavi) -> None:
    done = lavi(toy, "--dry-run", "--device", "h100", "--out", made).stdout.splitlines()
    assert [line.split()[0] for line in done[1:5]] == list(CELLS)
    assert all("MiB" in line and "min" in line and line.endswith("(done)") for line in done[1:5])
    assert done[5].startswith("4 cells, 0 to run: 0.0 min")
    to_make = lavi(toy, "--dry-run", "--device", "h100", "--out", made / "new").stdout.splitlines()
    assert to_make[5].startswith("4 cells, 4 to run: 0.")


def test_an_error_that_nobody_foresaw_stops_nobody_either(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(run_cells, "_run_cell", fails)
    study = load_study(str(toy))
    failures = run_cells.run_cells(study, expand_cells(study, tmp_path), tmp_path)
    assert [each.cell for each in failures] == list(CELLS)
    assert failures[0].reason == "MemoryError: no room"


def test_more_prompts_are_drawn_on_top_of_those_that_are_there(
    made: Path, write_study: Write, lavi: Lavi, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    suite = {"suite": "world", "categories": ["one", "unseen-words"], "limit": 3, "steps": 1}
    path = write_study(tmp_path, suites={"world": suite})
    before = times(out)
    assert lavi(path, "--only", "bert/seed-0", "--out", out).exit_code == 0
    after = times(out)
    assert len(list((out / "bert/seed-0").rglob("*.png"))) == 6
    assert all(after[name] == before[name] for name in before if name.endswith(".png"))
    fewer = lavi(write_study(tmp_path), "--table", "--out", out).stdout
    assert "Not finished: bert/seed-0." in fewer, "it was measured otherwise"


def test_what_nobody_trains_is_measured_by_several_processes(
    write_study: Write, lavi: Lavi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_study(tmp_path, axes={}, conditions=NATIVE, claims=[], ceiling=False)
    out = tmp_path / "out"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RunError, match="2 are selected"):
        lavi(path, "--out", out)
    for rank, suites in ((0, {}), (1, {"world"})):
        monkeypatch.setenv("RANK", str(rank))
        lavi(path, "--only", "own/seed-0", "--out", out)
        cell = json.loads((out / "own/seed-0" / CELL_FILE).read_text())
        assert set(cell["suites"]) == set(suites)
    assert cell["native"]
    assert not list(out.rglob("checkpoints"))


def test_models_may_lie_elsewhere(write_study: Write, lavi: Lavi, tmp_path: Path) -> None:
    named = {"name": "a", "set": {"language.kind": "llama", "language.source": "somebody/mini"}}
    path = write_study(tmp_path, axes={}, conditions=[named], claims=[])
    study = load_study(str(path))
    (cell, _) = expand_cells(study, tmp_path, {"somebody/mini": "/models/mini"})
    assert cell.recipe.language.model_dump()["source"] == "/models/mini"
    assert dict(cell.source_names) == {"language.source": "somebody/mini"}
    moved = f"somebody/mini={tmp_path}"
    assert shlex.quote(moved) in lavi(path, "--commands", "--source", moved).stdout
    with pytest.raises(LaviError, match="must be NAME=FOLDER"):
        lavi(path, "--commands", "--source", "somebody/mini=/nowhere")
    assert choose_cells(expand_cells(study, tmp_path), ["a/seed-1"])[0].seed == 1


def test_nothing_is_not_put_into_a_table(toy: Path, lavi: Lavi, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no finished cell"):
        lavi(toy, "--table", "--out", tmp_path)
    assert lavi(toy, "--table", "--dry-run", "--out", tmp_path).exit_code == 2


def test_a_cell_of_the_same_recipe_is_taken_over_from_another_study(
    made: Path, toy: Path, lavi: Lavi, tmp_path: Path, write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = [{"name": "causal"}, {"name": "wider", "set": {"lora.vision.rank": 4}}]
    renamed = {"seeds": [0], "axes": {}, "conditions": conditions, "claims": []}
    other = write_study(tmp_path, **{**renamed, "name": "other"})
    out = tmp_path / "out"
    with pytest.raises(RunError, match="holds no cell of a study"):
        lavi(other, "--out", out, "--reuse", tmp_path)
    monkeypatch.setattr(run_cells, "train", lambda *_: pytest.fail("it was trained already"))
    done = lavi(other, "--out", out, "--only", "causal", "--reuse", made)
    assert done.exit_code == 0
    assert all(
        torch.equal(weight, weights(out / "causal/seed-0")[name])
        for name, weight in weights(made / "llama/seed-0").items()
    )
    kept = json.loads((out / "causal/seed-0" / CELL_FILE).read_text())
    assert (kept["study"], kept["condition"]) == ("other", "causal")
    assert set(kept["suites"]) == {"world"}
    lavi(other, "--table", "--out", out, "--reuse", made)
    assert not (out / "wider").exists(), "another rank is another recipe"


def test_a_cell_of_an_earlier_version_has_the_defaults_of_what_there_was_not(
    made: Path, toy: Path, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    cell = expand_cells(load_study(str(toy)), out)[0]
    kept = json.loads((out / cell.name / CELL_FILE).read_text())
    assert kept["recipe"].pop("training.teacher") is None
    (out / cell.name / CELL_FILE).write_text(json.dumps(kept))
    assert cell_folder_differences(out / cell.name, cell) == []
    kept["recipe"]["training.gone"] = 3
    (out / cell.name / CELL_FILE).write_text(json.dumps(kept))
    assert "training.gone was 3, is None" in cell_folder_differences(out / cell.name, cell)


def test_another_checkpoint_in_a_cell_is_not_what_was_measured(
    made: Path, toy: Path, lavi: Lavi, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    newest = saved_checkpoints(out / "llama/seed-0")[-1]
    bridge = Bridge.from_pretrained(newest)
    with torch.no_grad():
        next(bridge.connector.parameters()).add_(1e-6)
    bridge.save_pretrained(newest / "bridge")
    assert "Not finished: llama/seed-0." in lavi(toy, "--table", "--out", out).stdout
    with pytest.raises(RunError, match=r"1 of 4 cells failed.*\n.*another bridge"):
        lavi(toy, "--out", out)


def test_a_cell_of_other_data_or_models_is_neither_left_nor_taken_over(
    made: Path, toy: Path, lavi: Lavi, tmp_path: Path
) -> None:
    out = copied(made, tmp_path)
    for cell, what in (("llama/seed-0", "language"), ("bert/seed-1", "data")):
        path = saved_checkpoints(out / cell)[-1] / "state.json"
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "basis": {**state["basis"], what: "another"}}))
    with pytest.raises(RunError) as found:
        lavi(toy, "--out", out)
    assert "2 of 4 cells failed" in str(found.value)
    assert "the language model was another, is random" in str(found.value)
    assert "the data was another" in str(found.value)
    lavi(toy, "--out", tmp_path / "new", "--only", "llama", "--reuse", out, "--table")
    assert [path.parent.name for path in (tmp_path / "new").rglob(CELL_FILE)] == ["seed-1"]


def test_scores_of_another_version_of_a_metric_stand_in_no_table_with_new_ones(
    made: Path, toy: Path, lavi: Lavi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(made, tmp_path)
    drawn = {path: path.stat().st_mtime_ns for path in out.rglob("*.png") if path.parent != out}
    monkeypatch.setattr(WorldMetric, "version", 2)
    lavi(toy, "--out", out, "--only", "llama/seed-0")
    with pytest.raises(RunError, match=r"cannot share a table: world of the suite 'world' changed"):
        lavi(toy, "--out", out, "--table")
    assert lavi(toy, "--out", out).exit_code == 0, "what is out of date is judged anew"
    assert all(path.stat().st_mtime_ns == before for path, before in drawn.items()), "and not drawn"
