"""The loop that makes the miniature models: exact resume, averaged weights, ordinary folders at the end."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import read_json
from lavibridge.core.paths import models_folder
from lavibridge.zoo.autoencoder import AutoencoderPretraining
from lavibridge.zoo.pretraining import export_pretraining
from lavibridge.zoo.pretraining import run_pretraining as run
from lavibridge.zoo.pretraining_jobs import PRETRAINING_JOBS, pretrain_miniature


def small_job() -> AutoencoderPretraining:
    """The real autoencoder on very little data."""
    job = AutoencoderPretraining(pool=24, held_out=4)
    job.batch = 2
    return job


def weights(job: AutoencoderPretraining) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in job.networks.parameters()])


def test_a_resumed_pretraining_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = small_job(), small_job(), small_job()
    run(whole, tmp_path / "whole", steps=4)
    # The schedule depends on the last step, so the first half must know it too: stop it after two steps.
    original = first.loss

    def loss_until_stopped(step: int) -> torch.Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return original(step)

    first.loss = loss_until_stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "halves", steps=4)
    assert read_json(tmp_path / "halves" / "position.json")["step"] == 2
    run(second, tmp_path / "halves", steps=4)
    assert torch.equal(weights(whole), weights(second))


def test_rounded_steps_lie_near_exact_ones_and_weights_stay_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavibridge.zoo.pretraining.cpu_computes_bfloat16", lambda: True)
    exact, rounded = small_job(), small_job()
    rounded.bfloat16 = True
    before = weights(exact)
    run(exact, tmp_path / "exact", steps=2)
    run(rounded, tmp_path / "rounded", steps=2)
    assert weights(rounded).dtype == torch.float32
    moved = (weights(exact) - before).norm()
    assert 0 < (weights(rounded) - weights(exact)).norm() < moved


def test_the_exported_folder_is_an_ordinary_model(tmp_path: Path) -> None:
    job = small_job()
    scores = run(job, tmp_path / "work", steps=2)
    assert set(scores) == {"mse", "all"}
    export_pretraining(job, tmp_path / "work", tmp_path / "model")
    loaded = AutoencoderKL.from_pretrained(tmp_path / "model")
    assert loaded.config.scaling_factor > 0
    assert read_json(tmp_path / "model" / "pretraining.json")["steps"] == 2
    assert (tmp_path / "model" / "diffusion_pytorch_model.safetensors").stat().st_size < 10_000_000


def test_an_unknown_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'mini-llama'"):
        pretrain_miniature("mini-lama", tmp_path)


def test_a_begun_pretraining_is_not_overwritten(tmp_path: Path) -> None:
    run(small_job(), tmp_path / "work", steps=1)
    with pytest.raises(RunError, match="--resume"):
        pretrain_miniature("mini-vae", tmp_path)


def test_going_on_wants_a_folder_that_says_its_steps_and_more_steps_than_it_has(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no pretraining.json: give a shipped model's name \(mini-bert"):
        pretrain_miniature("mini-sd", tmp_path, init_from=str(tmp_path))
    made = read_json(models_folder() / "mini-sd" / "pretraining.json")["steps"]
    with pytest.raises(RunError, match=f"{made} steps, and --steps is {made}: set a larger number"):
        pretrain_miniature("mini-sd", tmp_path, init_from="mini-sd", steps=made)
    with pytest.raises(RunError, match="mini-vae cannot continue from a folder"):
        run(small_job(), tmp_path / "work", steps=1, init_from=models_folder() / "mini-sd")
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINING_JOBS)
def test_the_command_of_each_card_begins_and_goes_on(name: str, tmp_path: Path) -> None:
    lavi = [sys.executable, "-m", "lavibridge", "world", "pretrain", name, "--out", str(tmp_path / "out")]
    for steps, more in ((1, []), (2, ["--resume"])):
        subprocess.run([*lavi, "--steps", str(steps), *more], check=True, capture_output=True)
        assert read_json(tmp_path / "out" / "model" / "pretraining.json")["steps"] == steps
    if (models_folder() / name / "model_index.json").is_file():
        done = read_json(models_folder() / name / "pretraining.json")["steps"]
        lavi[-1] = str(tmp_path / "on")
        subprocess.run([*lavi, "--steps", str(done + 1), "--from", name], check=True, capture_output=True)
        assert read_json(tmp_path / "on" / "model" / "pretraining.json")["steps"] == done + 1
