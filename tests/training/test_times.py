"""Which times are trained on: their density is the asked one, and none lies outside the schedule."""

import math
from statistics import NormalDist

import pytest

from lavibridge.recipes.training import Training
from lavibridge.training.timestep_sampling import timestep

CHANCES = [(number + 0.5) / 2000 for number in range(2000)]


def logit_normal(location: float = 0.0, scale: float = 1.0) -> Training:
    return Training(steps=1, times="logit_normal", times_location=location, times_scale=scale)


def test_uniform_times_are_the_share_of_the_schedule() -> None:
    settings = Training(steps=1)
    assert [timestep(chance, 1000, settings) for chance in (0.0, 0.2504, 0.9999)] == [0, 250, 999]


@pytest.mark.parametrize(("location", "scale"), [(0.0, 1.0), (0.5, 0.6), (-1.0, 2.0)])
def test_the_logit_of_the_time_is_normal(location: float, scale: float) -> None:
    """Esser et al. 2024, eq. 19: the share of visits below a time is the normal's at its logit."""
    times = [timestep(chance, 1000, logit_normal(location, scale)) for chance in CHANCES]
    for bound in (0.1, 0.3, 0.5, 0.8):
        below = sum(t < 1000 * bound for t in times) / len(times)
        assert below == pytest.approx(
            NormalDist(location, scale).cdf(math.log(bound / (1 - bound))), abs=0.002
        )
    assert times == sorted(times)


@pytest.mark.parametrize("chance", [0.0, 1e-12, 0.5, 1 - 2**-53])
def test_no_chance_leaves_the_schedule(chance: float) -> None:
    for settings in (Training(steps=1), logit_normal(), logit_normal(8.0, 5.0), logit_normal(-8.0, 5.0)):
        assert 0 <= timestep(chance, 1000, settings) <= 999
