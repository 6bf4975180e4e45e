"""Distances between sets: against libraries' definitions, closed forms, and what holds for any set."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save_file

from lavibridge.core.errors import DataError, ModelError
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.sets.extractors import ModelExtractor, make_extractor
from lavibridge.evaluation.sets.features import FeatureMoments, ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.frechet import frechet_to
from lavibridge.evaluation.sets.generated_set import JACKKNIFE_GROUPS, JACKKNIFE_T, jackknife
from lavibridge.evaluation.sets.kernels import cmmd_kernel_distance, kid_kernel_distance, normalize_rows
from lavibridge.evaluation.sets.precision_recall import precision_recall_to
from lavibridge.evaluation.sets.reference import check_reference, open_reference
from lavibridge.evaluation.suite import open_suite_metrics

linalg = pytest.importorskip("scipy.linalg")
scipy_stats = pytest.importorskip("scipy.stats")
pairwise = pytest.importorskip("sklearn.metrics.pairwise")


def features(seed: int, n: int, width: int, shift: float = 0.0) -> SetFeatures:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) + shift


def fid(drawn: SetFeatures, real: SetFeatures) -> float:
    return frechet_to(FeatureMoments.of(real)).distance(drawn)


def test_moments_are_numpys() -> None:
    x = features(0, 50, 7)
    assert np.allclose(FeatureMoments.of(x).covariance, np.cov(x, rowvar=False), rtol=1e-12)
    assert np.allclose(FeatureMoments.of(x).mean, x.mean(0))


def test_the_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    for seed in range(5):
        x, y = features(seed, 60, 12), features(seed + 100, 80, 12, shift=0.5)
        a, b = FeatureMoments.of(x), FeatureMoments.of(y)
        root = linalg.sqrtm(a.covariance @ b.covariance)
        mean = a.mean - b.mean
        expected = mean @ mean + np.trace(a.covariance + b.covariance - 2 * root.real)
        assert fid(x, y) == pytest.approx(expected, rel=1e-9)


def test_the_frechet_distance_is_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    rng = np.random.default_rng(0)
    real, drawn = (torch.tensor(rng.random((40, 3, 2, 2))) for _ in range(2))
    metric = image.FrechetInceptionDistance(feature=Flat(), normalize=True, antialias=False)
    metric.set_dtype(torch.float64)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    ours = fid(drawn.flatten(1).numpy(), real.flatten(1).numpy())
    assert ours == pytest.approx(float(metric.compute()), rel=1e-9)


def test_two_diagonal_covariances_have_a_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0])
    moments = [FeatureMoments(mean=np.full(3, m), covariance=np.diag(v)) for m, v in ((0.0, a), (2.0, b))]
    expected = 12 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_to(moments[0]).of_moments(moments[1]) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(3, 30), st.floats(-5, 5))
def test_a_frechet_distance_moves_with_nothing_but_the_sets(seed: int, n: int, shift: float) -> None:
    """Fewer pictures than features included."""
    x, y = features(seed, n, 8), features(seed + 1, n + 2, 8)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    scale = float(np.trace(FeatureMoments.of(x).covariance) + np.trace(FeatureMoments.of(y).covariance))
    assert fid(x, x) == pytest.approx(0, abs=1e-6 * scale)
    assert fid(x, y) == pytest.approx(fid(y, x), abs=1e-7 * scale)
    assert fid(x @ turn + shift, y @ turn + shift) == pytest.approx(fid(x, y), abs=1e-6 * scale)
    assert fid(x, y) > -1e-6 * scale


def test_kid_is_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = features(3, 40, 6), features(4, 40, 6, shift=0.2)
    theirs = float(kid.poly_mmd(torch.tensor(x), torch.tensor(y), degree=3, gamma=1 / 6, coef=1.0))
    assert kid_kernel_distance(y)(x) == pytest.approx(theirs, rel=1e-12)


def test_kid_of_one_distribution_is_zero_on_average() -> None:
    rng = np.random.default_rng(5)
    values = [kid_kernel_distance(rng.normal(size=(30, 4)))(rng.normal(size=(20, 4))) for _ in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(300)
    assert min(values) < 0


def test_cmmd_is_scikit_learns_kernel() -> None:
    x, y = normalize_rows(features(6, 30, 5)), normalize_rows(features(7, 25, 5, shift=1.0))
    k: Callable[[SetFeatures, SetFeatures], float] = lambda a, b: float(  # noqa: E731 - a formula
        pairwise.rbf_kernel(a, b, gamma=1 / (2 * 10.0**2)).mean()
    )
    expected = 1000 * (k(x, x) + k(y, y) - 2 * k(x, y))
    assert cmmd_kernel_distance(3 * y)(2 * x) == pytest.approx(expected, rel=1e-9)
    assert cmmd_kernel_distance(y)(y) == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_of_sets_that_can_be_seen_through() -> None:
    grid = np.array([[float(i), float(j)] for i in range(6) for j in range(6)])
    both = precision_recall_to(grid, k=3)
    assert both(grid) == {"precision": 1, "recall": 1}
    assert both(grid + 100) == {"precision": 0, "recall": 0}
    corner = grid[(grid < 3).all(axis=1)]
    few = both(corner)
    assert few["precision"] == 1
    assert few["recall"] < 0.6


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    x = np.random.default_rng(0).normal(size=(JACKKNIFE_GROUPS, 1))
    found = jackknife(
        lambda rows: {"mean": float(rows.mean())}, x, [str(i) for i in range(JACKKNIFE_GROUPS)], "x"
    )
    reach = JACKKNIFE_T * x.std(ddof=1) / math.sqrt(JACKKNIFE_GROUPS)
    assert found["mean"].high - found["mean"].mean == pytest.approx(reach, rel=1e-9)
    assert scipy_stats.t.ppf(0.975, JACKKNIFE_GROUPS - 1) == pytest.approx(JACKKNIFE_T)
    alone = jackknife(lambda rows: {"mean": float(rows.mean())}, x, ["one prompt"] * JACKKNIFE_GROUPS, "x")
    assert math.isnan(alone["mean"].low)


def test_the_jackknifes_interval_covers_what_sets_of_this_size_give() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(2000, 3))
    measure = frechet_to(FeatureMoments.of(real)).distance
    sets = [rng.normal(size=(200, 3)) * 1.3 + 0.3 for _ in range(60)]
    expected = np.mean([measure(drawn) for drawn in sets])
    hits = 0
    for drawn in sets:
        found = jackknife(lambda rows: {"fid": measure(rows)}, drawn, [str(i) for i in range(200)], "x")
        hits += found["fid"].low <= expected <= found["fid"].high
    assert hits >= 52


def test_references_are_folders_files_and_the_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "cache"))
    extractor = make_extractor("mini-resnet", None)
    folder = tmp_path / "real"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(folder / f"{number}.png")
    from_folder = open_reference(str(folder), extractor, [])
    assert from_folder.features is not None
    assert from_folder.features.shape == (3, 96)
    again = open_reference(str(folder), _Broken("mini-resnet", "model"), [])  # from the cache
    assert np.array_equal(again.all_features("x"), from_folder.features)
    assert again.card == from_folder.card

    moments = FeatureMoments.of(from_folder.features)
    np.savez(tmp_path / "stats.npz", mu=moments.mean, sigma=moments.covariance)
    save_file({"features": from_folder.features}, tmp_path / "all.safetensors")
    kept = open_reference(str(tmp_path / "stats.npz"), extractor, [])
    assert np.allclose(kept.all_moments().covariance, moments.covariance)
    with pytest.raises(DataError, match="KID needs the features"):
        kept.all_features("KID")
    of_file = open_reference(str(tmp_path / "all.safetensors"), extractor, [])
    assert np.array_equal(of_file.all_features("x"), from_folder.features)
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png.*repair or remove"):
        open_reference(str(folder), extractor, [])


class _Broken(ModelExtractor):
    def features(self, pictures: object) -> SetFeatures:
        raise AssertionError("the features should have been remembered")


def test_references_that_are_not_there_or_are_wrong(tmp_path: Path) -> None:
    task = Task(category="landscapes", prompt="a hill", seed=0, file="x")
    with pytest.raises(DataError, match="no scenes of 'landscapes'"):
        check_reference("world", [task])
    with pytest.raises(DataError, match="there is no"):
        check_reference(str(tmp_path / "nothing"), [task])
    with pytest.raises(DataError, match="holds no JPEG"):
        check_reference(str(tmp_path), [task])
    extractor = make_extractor("mini-resnet", None)
    np.savez(tmp_path / "odd.npz", mean=np.zeros(3))
    with pytest.raises(DataError, match="holds mean: it needs"):
        open_reference(str(tmp_path / "odd.npz"), extractor, [])
    (tmp_path / "pickle.npz").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match="cannot be read"):
        open_reference(str(tmp_path / "pickle.npz"), extractor, [])
    with pytest.raises(ModelError, match=r"weights of FID's Inception.*weights_only"):
        make_extractor(str(tmp_path / "inception.safetensors"), None)


def test_a_metric_of_sets_wants_enough_pictures_and_its_width() -> None:
    [metric] = open_suite_metrics([{"kind": "fid", "reference": "world", "features": "mini-resnet"}], [], ())
    task = Task(category="one", prompt="a red circle", seed=0, file="x")
    with pytest.raises(DataError, match="at least 20 images, found 3"):
        metric.check([task] * 3)
    metric.check([task] * 20)
    assert ReferenceFeatures(features=np.zeros((2, 5)), card={}).width == 5
