"""`lavi doctor` compares versions as numbers, reads the network setting, and finds a damaged model."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavibridge.cli import doctor
from lavibridge.cli.main import app
from lavibridge.core import files
from lavibridge.zoo.hashes import write_hashes


@pytest.mark.parametrize(
    ("found", "floor", "is_older"),
    [
        ("2.9.1", "2.10", True),
        ("2.10", "2.10", False),
        ("2.13.0+cpu", "2.10", False),
        ("5.3.0", "5.3", False),
        ("4.57.1", "5.3", True),
        ("12", "12", False),
    ],
)
def test_versions_are_compared_as_numbers(found: str, floor: str, is_older: bool) -> None:
    assert doctor.older(found, floor) is is_older


def test_the_doctor_looks_at_everything() -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code in (0, 1)
    for subject in (
        "torch",
        "transformers",
        "diffusers",
        "torchvision",
        "python",
        "device",
        "threads",
        "memory",
    ):
        assert f" {subject} " in done.stdout
    bad = [line for line in done.stdout.splitlines() if line.startswith("bad")]
    assert (done.exit_code == 1) == bool(bad)


def test_an_old_library_is_bad_and_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.FLOORS, "torch", ("999.0", "a reason"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "bad   torch" in done.stdout
    assert "a reason" in done.stdout


@pytest.mark.parametrize(
    ("setting", "said"), [("1", "offline"), ("0", "may be fetched"), ("", "may be fetched")]
)
def test_the_network_setting_is_read(monkeypatch: pytest.MonkeyPatch, setting: str, said: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", setting)
    assert said in CliRunner().invoke(app, ["doctor"]).stdout


def test_a_damaged_shipped_model_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini-toy" / "unet").mkdir(parents=True)
    weights = tmp_path / "mini-toy" / "unet" / "model.safetensors"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(files, "models_folder", lambda: tmp_path)
    assert "hashes.json is missing" in CliRunner().invoke(app, ["doctor"]).stdout
    write_hashes(tmp_path / "mini-toy")
    assert "1 files as shipped" in CliRunner().invoke(app, ["doctor"]).stdout
    weights.write_bytes(b"weightz")
    assert "damaged: unet/model.safetensors" in CliRunner().invoke(app, ["doctor"]).stdout
