"""`lavi pivot rank`: figures of each language model, a ridge regression, and a pivot that stays as it was."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.connectors.pivot import LanguageHalf, Pivot
from lavibridge.core.contracts import TextFeatures, TextSpec
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.evaluation.stats import Estimate
from lavibridge.pivot.folder import PivotFolder, copy_pivot, read_pivot
from lavibridge.training.pivot.alignment import create
from lavibridge.training.pivot.ranking import RankedLanguage, rank_correlations
from lavibridge.training.pivot.recipes import first_recipe
from lavibridge.training.pivot.ridge import PLACES, pool_at_places, ridge_predictions

SHORT = (
    "data.scenes=120",
    "connector.slots=6",
    "connector.width=32",
    "connector.latents=4",
    "training.align={steps: 12, batch: 8, lr: 5.0e-3, noised_latents: 16, measure_every: 6, captions: 100}",
)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pivot(tmp_path_factory: pytest.TempPathFactory) -> PivotFolder:
    """A first pair, hardly trained."""
    recipe = first_recipe("mini-llama_mini-sd_pivot", SHORT, None)
    return create(recipe, tmp_path_factory.mktemp("ranked") / "pivot")


def lavi(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def features(hidden: torch.Tensor, lengths: list[int]) -> TextFeatures:
    mask = torch.arange(hidden.shape[2]) < torch.tensor(lengths)[:, None]
    return TextFeatures(hidden=hidden, mask=mask)


def test_places_keep_the_order_of_the_tokens_and_leave_out_padding() -> None:
    half = LanguageHalf(Pivot.Config(slots=3, width=8, language_heads=2), TextSpec(width=5, layers=1))
    hidden = torch.randn(2, 1, 9, 5)
    pooled = pool_at_places(half, features(hidden, [9, 6]))
    assert pooled.shape == (2, 5 * PLACES)
    alone = pool_at_places(half, features(hidden[1:, :, :6], [6]))
    torch.testing.assert_close(pooled[1:], alone)
    reversed_order = pool_at_places(half, features(hidden[:1].flip(2), [9]))
    torch.testing.assert_close(
        reversed_order.reshape(PLACES, 5), pooled[0].reshape(PLACES, 5).flip(0), rtol=1e-4, atol=1e-5
    )
    first = half.read(hidden)[0, 0]
    torch.testing.assert_close(pool_at_places(half, features(hidden[:1], [1]))[0, :5], first)


def test_the_ridge_regression_is_the_one_of_the_textbook() -> None:
    torch.manual_seed(0)
    x, x_new, weight = torch.randn(50, 7), torch.randn(9, 7), torch.randn(7, 3)
    x, x_new = x.double(), x_new.double()
    y = x @ weight.double() + 0.1 * torch.randn(50, 3).double()
    mean, spread = x.mean(0), x.std(0, correction=0)
    z, z_new = (x - mean) / spread, (x_new - mean) / spread
    for penalty in (1e-3, 0.1):
        (found,) = ridge_predictions(x, y, x_new, (penalty,))
        scale = penalty * z.square().sum(1).mean()
        solved = torch.linalg.solve(z.T @ z + scale * torch.eye(7).double(), z.T @ (y - y.mean(0)))
        torch.testing.assert_close(found, y.mean(0) + z_new @ solved)


def test_models_are_ranked_in_a_copy_of_the_pivot(pivot: PivotFolder, tmp_path: Path) -> None:
    models = ("mini-llama", "mini-bert", "mini-t5-small", "mini-clip")
    out, figures = tmp_path / "ranked", tmp_path / "rank.json"
    draw = ("--category", "one", "--category", "two", "--limit", "1", "--out", out, "--json", figures)
    table = lavi("pivot", "rank", pivot.folder, *models, "training.align.steps=6", *draw)
    header, *rows = table.splitlines()[:5]
    for title in (
        "ridge fvu",
        "fvu, unseen words",
        "all",
        "one",
        "two",
        "parameters",
        "ms a prompt",
        "memory",
    ):
        assert title in header
    assert {row.split("  ")[0] for row in rows} == {"mini-llama (reference)", *models[1:]}
    found = json.loads(figures.read_text())
    assert found["pivot"] == pivot.description.id
    assert found["drawing"]["vision"] == "mini-sd"
    by_name = {each["name"]: each for each in found["models"]}
    assert by_name["mini-llama"]["fvu"] == pytest.approx(0, abs=1e-6)
    for each in by_name.values():
        assert 0 < each["ridge_fvu"] < 3
        assert each["unseen_words_fvu"] > 0
        assert each["megabytes"] == pytest.approx(4e-6 * each["parameters"], rel=0.1)
        assert each["milliseconds"] > 0
        assert {name: score["n"] for name, score in each["scores"].items()} == {"all": 2, "one": 1, "two": 1}
    assert set(found["rank_correlations"]["fvu"]) == {"all", "one", "two"}
    assert found["rank_correlations"]["fvu"]["one"]["n"] == 3
    assert pivot.names("language") == ("mini-llama",)
    assert not (pivot.folder / "evaluation").exists()
    assert read_pivot(out).names("language") == tuple(sorted(models))
    shown = lavi("pivot", "show", out)
    assert shown.count("(n 2)") == len(models)


def test_a_second_call_adds_nothing_again(
    pivot: PivotFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("pivot", "rank", pivot.folder, "mini-bert", "training.align.steps=2", "--no-draw")
    first = lavi(*call, "--out", tmp_path / "out")

    def refuse(*_: object) -> None:
        raise AssertionError("a half learned again")

    monkeypatch.setattr("lavibridge.training.pivot.ranking.learn_half", refuse)
    again = lavi(*call, "--out", tmp_path / "out")
    assert again.split()[:9] == first.split()[:9]


def test_the_closed_form_learns_and_draws_nothing(pivot: PivotFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = lavi("pivot", "rank", pivot.folder, "mini-bert", "mini-t5-small", "--closed-form", "--out", out)
    assert table.splitlines()[0].split("  ")[:2] == ["language model", "ridge fvu"]
    assert "one" not in table.splitlines()[0]
    assert read_pivot(out).names("language") == ("mini-llama",)


def test_captions_of_ones_own_have_no_unseen_words(pivot: PivotFolder, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(f"{number} red circles beside a blue star" for number in range(40)))
    call = ("pivot", "rank", pivot.folder, "mini-bert", "training.align.steps=2", "--no-draw")
    assert "unseen" not in lavi(*call, "--captions", captions)
    captions.write_text("a red circle\na blue square\n")
    with pytest.raises(RecipeError, match="a ranking compares held-out captions"):
        lavi(*call, "--captions", captions)


def test_what_cannot_be_ranked_is_refused_before_models_load(pivot: PivotFolder, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"would both be the half 'mini-llama'"):
        lavi("pivot", "rank", pivot.folder, tmp_path / "mini-llama", "--no-draw")
    with pytest.raises(RunError, match="no vision half 'mini-pixart'"):
        lavi("pivot", "rank", pivot.folder, "mini-bert", "--vision", "mini-pixart")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunError, match="exists already"):
        lavi("pivot", "rank", pivot.folder, "mini-bert", "--out", tmp_path / "other")
    renamed = copy_pivot(pivot, tmp_path / "renamed")
    description = json.loads((renamed.folder / "pivot.json").read_text())
    (renamed.folder / "pivot.json").write_text(json.dumps({**description, "id": "another"}))
    with pytest.raises(RunError, match="is another pivot than"):
        lavi("pivot", "rank", pivot.folder, "mini-bert", "--out", renamed.folder)


def ranked(name: str, fvu: float | None, score: float, is_reference: bool = False) -> RankedLanguage:
    figures: dict[str, Any] = {
        "source": name,
        "unseen_words_fvu": None,
        "milliseconds": 1.0,
        "megabytes": 1.0,
    }
    all_right = Estimate(n=10, mean=score, low=0.0, high=1.0)
    return RankedLanguage(
        name=name,
        is_reference=is_reference,
        ridge_fvu=0.5,
        fvu=fvu,
        parameters=int(100 * score),
        scores={"all": all_right},
        **figures,
    )


def test_correlations_are_of_the_added_models_that_have_both_figures() -> None:
    models = [ranked("a", 0.1, 0.9), ranked("b", 0.2, 0.7), ranked("c", 0.3, 0.8), ranked("d", 0.9, 0.1)]
    reference = ranked("r", 0.0, 0.0, is_reference=True)
    found = rank_correlations([*models, reference])
    assert found["fvu"]["all"].n == 4
    assert found["fvu"]["all"].rho == pytest.approx(0.8)
    assert found["parameters"]["all"].rho == pytest.approx(1.0)
    assert np.isnan(found["ridge_fvu"]["all"].rho)
    assert "unseen_words_fvu" not in found
    assert not rank_correlations([*models[:2], reference])
