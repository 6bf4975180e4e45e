"""Runs are shown as they are, read-only, and no name leads out of the runs folder."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavibridge.core.errors import RunError
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web import runs
from lavibridge.serve.web.address import Address, check_address
from lavibridge.serve.web.server import make_app_state
from lavibridge.world.captions import evaluation_prompts
from lavibridge.world.drawing import draw_scene

Serve = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A runs folder with a run, a damaged one, and something else."""
    run = tmp_path / "runs" / "good"
    (run / "samples").mkdir(parents=True)
    (run / "recipe.yaml").write_text("language: {kind: t5, source: mini-t5-small}\ntraining: {steps: 2000}\n")
    rows = [{"step": step, "loss": 1 / step, "seconds": step} for step in range(1, 1002)]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Image.new("RGB", (4, 4)).save(run / "samples" / "step-7.png")
    (run / "report.html").write_text("<h1>Report</h1>")
    damaged = tmp_path / "runs" / "damaged"
    damaged.mkdir()
    (damaged / "recipe.yaml").write_text("{")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "runs"


def test_a_run_is_summed_up_and_its_curve_thinned(root: Path) -> None:
    assert set(runs.list_runs(root)) == {"good", "damaged"}
    assert runs.list_runs(root / "nothing") == {}
    told = runs.run_details(root / "good")
    assert told["state"] == "training"
    assert (told["step"], told["steps"]) == (1001, 2000)
    assert told["parts"]["language"] == "mini-t5-small"
    assert len(told["curve"]) <= runs.MAX_CURVE_POINTS + 1
    assert (told["curve"][0]["step"], told["curve"][-1]["step"]) == (1, 1001)
    damaged = runs.run_summary(root / "damaged")
    assert damaged["state"] == "damaged"
    assert str(root) not in damaged["error"]


def test_a_run_s_evaluation_is_told_by_category(root: Path) -> None:
    pictures = root.parent / "pictures"
    pictures.mkdir()
    for number, pair in enumerate(evaluation_prompts("one", 3)):
        Image.fromarray(draw_scene(pair.scene)).save(pictures / f"{number}.png")
    evaluate(pictures, "world", root / "good" / "evaluation" / "world", categories=("one",), limit=3)
    scores = runs.run_details(root / "good")["scores"]
    assert set(scores) == {"world: all", "world: one"}
    assert (scores["world: one"]["n"], scores["world: one"]["mean"]) == (3, 1.0)


def test_runs_over_http(root: Path, models: dict[str, ServedModel], running: Serve) -> None:
    with running(make_app_state(models, Limits(), root, False)) as served:
        assert {run["name"] for run in served.client.get("/v1/runs").json()} == {"good", "damaged"}
        assert served.client.get("/v1/runs/good").json()["samples"] == ["step-7"]
        assert served.client.get("/v1/runs/good/samples/step-7").content.startswith(b"\x89PNG")
        report = served.client.get("/v1/runs/good/report")
        assert report.text == "<h1>Report</h1>"
        assert "sandbox" in report.headers["content-security-policy"]
        assert served.client.get("/v1/runs/damaged").status_code == 400
        for path in (
            "other",
            "..",
            "%2e%2e",
            "good/samples/..%2f..%2fsecret",
            "good/samples/%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret",
            "good/samples/recipe",
            "other/report",
        ):
            assert served.client.get(f"/v1/runs/{path}").status_code == 404, path
        assert served.client.post("/v1/runs/good", json={}).status_code == 405


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::"])
def test_other_machines_are_let_in_with_a_token_only(host: str) -> None:
    with pytest.raises(RunError, match="set a token"):
        check_address(Address(host=host))
    with pytest.raises(RunError, match="at least 16"):
        check_address(Address(host=host, token="short"))
    check_address(Address(host=host, token="long-enough-to-be-one"))
    check_address(Address(host="localhost"))
