"""Alignment: the connector learns from the own encoder, nothing else moves, and a run goes on from it."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lavibridge import BridgePipeline
from lavibridge.cli.main import app
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError, RecipeError, RunError
from lavibridge.recipes.alignment import alignment_recipe
from lavibridge.recipes.recipe import Recipe, load_recipe
from lavibridge.recipes.training_section import AlignmentSection
from lavibridge.report import alignment
from lavibridge.report.curves import make_curves
from lavibridge.report.run_record import read_run
from lavibridge.training.alignment.aligner import alignment_state, with_noise
from lavibridge.training.alignment.objective import alignment_method
from lavibridge.training.checkpoints.checkpoint import saved_checkpoints
from lavibridge.training.start_checks import check_start
from lavibridge.training.train import train
from lavibridge.world.captions import sample_captioned_scene

Toy = Callable[..., Recipe]
SD = {"kind": "sd", "source": "mini-sd"}
CAPTIONS = ["a red circle", "a small blue star", "a large striped green ring above a yellow cross"]
Choice = dict[str, str]
ALIGNED = {"align": {"steps": 14, "batch": 8, "lr": 5e-3, "noised_latents": 8}}


def logged(run: Path) -> list[float]:
    """The fvu of each step; the record before the first step has none."""
    records = [json.loads(line) for line in (run / "align.jsonl").read_text().splitlines()]
    return [record["fvu"] for record in records if record["step"]]


def test_noise_is_as_large_as_it_is_said_to_be_and_the_same_every_time() -> None:
    hidden = torch.randn(64, 2, 50, 6) * torch.tensor([0.1, 1, 1, 3, 10, 1])
    features = TextFeatures(hidden=hidden, mask=torch.rand(64, 50) < 0.5)
    features.hidden.masked_fill_(~features.mask[:, None, :, None], 1e6)  # padding tells nothing of the spread
    assert with_noise(features, 0.0, torch.Generator()) is features
    drawn = [with_noise(features, 0.5, torch.Generator().manual_seed(3)).hidden for _ in range(2)]
    assert torch.equal(*drawn)
    real = features.mask[:, None, :, None].expand(-1, 2, -1, 6)
    noise = (drawn[0] - features.hidden)[real].reshape(-1, 6)
    ratio = noise.std(0) / features.hidden[real].reshape(-1, 6).std(0)
    assert ratio.sub(0.5).abs().max() < 0.05


def test_only_the_connector_learns_and_it_comes_to_be_heard(toy: Toy, tmp_path: Path) -> None:
    speaker = {"source": "mini-llama", "max_tokens": 96}
    training = {"steps": 2, "align": {"steps": 30, "batch": 12, "lr": 3e-3, "noised_latents": 16}}
    run = train(toy(language=speaker, vision=SD, data={"size": 64}, training=training), tmp_path / "run")
    found = logged(run)
    assert len(found) == 30
    assert sum(found[-4:]) < 0.8 * sum(found[:4])
    assert "Alignment" in [chart["title"] for chart in make_curves([read_run(run)])]
    first = run / "checkpoints/step-0/bridge"
    for part in ("language_lora", "vision_lora"):
        weights = load_file(first / part / "adapter_model.safetensors")
        assert all(not value.any() for name, value in weights.items() if "lora_B" in name)
    average = load_file(run / "checkpoints/step-0/ema/connector/model.safetensors")
    assert all(
        torch.equal(value, average[name])
        for name, value in load_file(first / "connector/model.safetensors").items()
    )


def test_a_run_that_stops_after_its_alignment_goes_on_as_if_it_had_not(
    toy: Toy, own_encoder: Choice, tmp_path: Path
) -> None:
    aligned = {**ALIGNED, "checkpoint_every": 1}
    straight = train(toy(vision=own_encoder, training={"steps": 2, **aligned}), tmp_path / "straight")
    broken = tmp_path / "broken"
    train(toy(vision=own_encoder, training={"steps": 1, **aligned}), broken)
    shutil.rmtree(broken / "checkpoints/step-1")
    train(toy(vision=own_encoder, training={"steps": 2, **aligned}), broken, resume=True)
    assert len(logged(broken)) == 14  # not aligned again
    ends = [run / "checkpoints/step-2/bridge" for run in (straight, broken)]
    assert [path.name for path in saved_checkpoints(broken)] == ["step-0", "step-1", "step-2"]
    for name in ("connector/model.safetensors", "vision_lora/adapter_model.safetensors"):
        one, other = (load_file(end / name) for end in ends)
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_an_alignment_that_is_stopped_goes_on_bit_for_bit(
    toy: Toy, own_encoder: Choice, tmp_path: Path
) -> None:
    training = {"steps": 1, "checkpoint_every": 4, **ALIGNED}
    recipe = toy(vision=own_encoder, training=training)
    straight, broken = train(recipe, tmp_path / "straight"), tmp_path / "broken"
    stopped = Thread(target=stop_after, args=(broken / "align.jsonl", 6), daemon=True)
    stopped.start()
    with pytest.raises(KeyboardInterrupt):
        train(recipe, broken)
    stopped.join()
    done = len(logged(broken))
    assert 5 <= done < 14  # six lines are the record before the first step and five steps
    assert not saved_checkpoints(broken)
    assert (broken / "align.safetensors").is_file()
    with open(broken / "align.jsonl", "a") as log:
        log.write('{"step": 25, "fvu": 1}\n{"st')  # as of a session that was killed later
    train(recipe, broken, resume=True)
    assert logged(broken) == logged(straight)
    assert not (broken / "align.safetensors").exists()
    for name in ("step-0/bridge/connector/model.safetensors", "step-1/bridge/connector/model.safetensors"):
        one, other = (load_file(run / "checkpoints" / name) for run in (straight, broken))
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_an_alignment_does_not_go_on_with_other_data_or_from_a_ruin(
    toy: Toy, own_encoder: Choice, tmp_path: Path
) -> None:
    training = {"steps": 1, **ALIGNED}
    run = tmp_path / "run"
    Thread(target=stop_after, args=(run / "align.jsonl", 2), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train(toy(vision=own_encoder, training=training), run)
    with pytest.raises(RunError, match=r"a step was training\.batch"):
        train(toy(vision=own_encoder, training={**training, "batch": 4}), run, resume=True)
    (run / "align.safetensors").write_bytes(b"ruin")
    with pytest.raises(RunError, match=r"align\.safetensors is damaged: delete it"):
        train(toy(vision=own_encoder, training=training), run, resume=True)


def stop_after(log: Path, lines: int) -> None:
    """Press Ctrl-C when a log is so long."""
    while not log.is_file() or log.read_bytes().count(b"\n") < lines:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def test_alignment_takes_no_more_than_its_share_of_the_time(
    toy: Toy, own_encoder: Choice, tmp_path: Path
) -> None:
    aligned = {"steps": 100_000, "batch": 4, "lr": 1e-3, "noised_latents": 8, "max_time_share": 0.5}
    limited = {"steps": 1, "max_minutes": 0.1, "align": aligned}
    run = train(toy(vision=own_encoder, training=limited), tmp_path / "run")
    seconds = [json.loads(line)["seconds"] for line in (run / "align.jsonl").read_text().splitlines()]
    assert seconds[-2] < 3  # the last step began within 0.5 of 6 seconds
    assert seconds[-1] > 2.8  # and no earlier limit, of steps or time, ended it


@pytest.mark.parametrize(
    ("sections", "match", "message"),
    [
        ({}, None, r"training\.align needs the vision model's own text encoder.*a random toy has none"),
        ({"connector": {"kind": "llmdiff"}}, "attention", "this connector changes single layers"),
        (
            {"vision": {"kind": "sd3", "source": "random"}},
            "attention",
            "has none that stands alone",
        ),
        ({}, "tokens", "a fixed number of tokens, such as 'resampler'"),
        ({"connector": {"kind": "resampler"}}, "closed_form", "use 'linear', 'mlp' or 'lavi'"),
    ],
)
def test_what_cannot_be_aligned_is_refused_before_weights_load(
    toy: Toy, tmp_path: Path, sections: dict[str, dict[str, Any]], match: str | None, message: str
) -> None:
    recipe = toy(**sections, training={"align": {**ALIGNED["align"], "match": match}})
    with pytest.raises(ModelError, match=message):
        check_start(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_connector_without_weights_cannot_be_aligned() -> None:
    with pytest.raises(ModelError, match="has no weights to align"):
        alignment_state(BridgePipeline.native("mini-sd", device="cpu").bridge, AlignmentSection())


def test_a_bridge_is_learned_from_a_text_file_and_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lavi align` as a user calls it: three captions a line each, a report of two pairs of pictures."""
    monkeypatch.setattr(alignment, "PANEL", alignment.PANEL[4:6])
    captions = tmp_path / "captions.txt"
    lines = [sample_captioned_scene(1, index).caption for index in range(60)]
    captions.write_text("\n\n".join(lines) + "\n")
    out = tmp_path / "run"
    settings = ["training.align={steps: 6, batch: 8, noised_latents: 16, measure_every: 3, lr: 5e-3}"]
    settings += ["preview.steps=2", "training.preview_every=1", "training.device=cpu"]
    arguments = [
        "align",
        "mini-llama_mini-sd_lavi",
        *settings,
        "--captions",
        str(captions),
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(app, [*arguments, "--language", "mini-bert", "--report"])
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in (out / "align.jsonl").read_text().splitlines()]
    measured = {record["step"]: record["held_out_fvu"] for record in records if "held_out_fvu" in record}
    assert list(measured) == [0, 3, 6]
    assert 0 < measured[6] < measured[0]
    assert all(-1 <= record["token_cosine"] <= 1 for record in records if "held_out_fvu" in record)
    assert [path.name for path in saved_checkpoints(out)] == ["step-0"]
    assert read_run(out).recipe["language"]["source"] == "mini-bert"
    report = out / "alignment-report"
    assert {path.name for path in report.iterdir()} == {"summary.json", "curve.jsonl", "panel.png"}
    summary = (report / "summary.json").read_text()
    assert str(tmp_path) not in summary
    assert json.loads(summary)["steps"] == 6
    with pytest.raises(RecipeError, match="has no pictures, but training"):
        check_start(load_recipe(str(out / "recipe.yaml"), ["training.steps=1"]), None)


def test_a_bridge_teaches_another_language_model(toy: Toy, own_encoder: Choice, tmp_path: Path) -> None:
    """The student of a bridge takes over the LoRA that its teacher trained in the vision model."""
    taught = train(toy(vision=own_encoder, training={"steps": 2}), tmp_path / "teacher")
    recipe = toy(
        vision=own_encoder,
        language={"kind": "bert", "source": "random"},
        training={"align": {"steps": 30, "batch": 10, "lr": 2e-2, "noised_latents": 8, "held_out": 0}},
    )
    student = train(alignment_recipe(recipe, teacher=str(taught)), tmp_path / "student")
    found = logged(student)
    assert sum(found[-4:]) < 0.7 * sum(found[:4])
    ends = [
        taught / "checkpoints/step-2/ema/vision_lora/adapter_model.safetensors",  # what generation uses
        student / "checkpoints/step-0/bridge/vision_lora/adapter_model.safetensors",
    ]
    one, other = (load_file(end) for end in ends)
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert any(value.any() for name, value in one.items() if "lora_B" in name)
    elsewhere = toy(vision={"kind": "ldm", "source": "mini-ldm"}, training=ALIGNED)
    with pytest.raises(ModelError, match="choose a teacher with the same vision model"):
        train(alignment_recipe(elsewhere, teacher=str(taught)), tmp_path / "other")


def test_an_alignment_ends_when_the_held_out_captions_gain_no_more(
    toy: Toy, own_encoder: Choice, tmp_path: Path
) -> None:
    still = {"steps": 20, "batch": 8, "lr": 1e-12, "noised_latents": 8, "measure_every": 2, "patience": 2}
    scenes = {"scenes": 40}
    run = train(toy(vision=own_encoder, data=scenes, training={"steps": 0, "align": still}), tmp_path / "run")
    records = [json.loads(line) for line in (run / "align.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "held_out_fvu" in record] == [0, 2, 4]
    assert records[-1]["step"] == 4
    on = {"steps": 1, "align": still}  # the same run, trained on with pictures
    train(toy(vision=own_encoder, data=scenes, training=on), run, resume=True)
    assert [path.name for path in saved_checkpoints(run)] == ["step-0", "step-1"]


def test_two_alignments_share_no_objective(toy: Toy) -> None:
    recipe = toy(vision=SD, training=ALIGNED)
    one, other = (alignment_method(recipe).objective for _ in range(2))
    assert one is not other
