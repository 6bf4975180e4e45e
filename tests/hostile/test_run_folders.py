"""The server shows what lies in the runs folder, and reports a damaged run as damaged."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavibridge.core.errors import RunError
from lavibridge.report.run_record import read_run
from lavibridge.serve.web import runs

WORDS = st.sampled_from(
    [
        "training",
        "steps",
        "language",
        "source",
        "metrics",
        "suite",
        "drawn_with",
        "bridge",
        "version",
        "all",
        "step",
        "loss",
        "compared",
        "categories",
        "card",
        "unit",
        "sha256",
        "kind",
        "validation",
    ]
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in a runs folder, beside a secret."""
    folder = tmp_path / "runs" / "good"
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("training: {steps: 2}\n")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folder


def test_links_out_of_a_run_are_not_followed(run: Path) -> None:
    secret = run.parent.parent / "secret.png"
    (run / "samples" / "leak.png").symlink_to(secret)
    (run / "report.html").symlink_to(secret)
    Image.new("RGB", (2, 2)).save(run / "samples" / "own.png")
    assert runs.run_preview(run, "leak") is None
    assert runs.run_report(run) is None
    assert (runs.run_preview(run, "own") or b"").startswith(b"\x89PNG")


def test_a_linked_folder_is_no_run(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "recipe.yaml").write_text("{}")
    (run.parent / "linked").symlink_to(outside)
    half = run.parent / "half"
    half.mkdir()
    (half / "recipe.yaml").symlink_to(outside / "recipe.yaml")
    assert set(runs.list_runs(run.parent)) == {"good"}


@pytest.mark.parametrize(
    "name",
    ["recipe.yaml", "environment.json", "results.json", "log.jsonl"],
)
@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe{\n1", b"[" * 3_000 + b"\n1", b'{"step": ' + b"1" * 5000 + b"}\n1"],
    ids=["torn", "deep", "long"],
)
def test_a_damaged_file_makes_a_damaged_run(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    summary = runs.run_summary(run)
    assert summary["state"] == "damaged"
    assert name in summary["error"]
    assert str(run.parent) not in summary["error"]
    with pytest.raises(RunError, match=name) as refused:
        runs.run_details(run)
    assert str(run.parent) not in str(refused.value)


def test_a_log_cut_inside_a_letter_keeps_its_rows(run: Path) -> None:
    (run / "log.jsonl").write_bytes('{"step": 1, "loss": 0.5}\n{"step": 2, "note": "ä'.encode()[:-1])
    assert [row["step"] for row in read_run(run).rows] == [1]


FILES = ["recipe.yaml", "environment.json", "results.json", "log.jsonl", "evaluation/suite/results.json"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(name=st.sampled_from(FILES), value=VALUES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_a_runs_files_is_shown_or_damage(run: Path, name: str, value: object) -> None:
    file = run / name
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_bytes() if file.is_file() else None
    file.write_text(json.dumps(value) + "\n")
    json.dumps(runs.run_summary(run))
    with suppress(RunError):
        json.dumps(runs.run_details(run))
    file.unlink() if before is None else file.write_bytes(before)
