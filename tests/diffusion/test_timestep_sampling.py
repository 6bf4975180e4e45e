"""Which timesteps training draws: their density is the requested one, and none lies outside the schedule."""

import math
from statistics import NormalDist

import pytest

from lavibridge.diffusion.timestep_sampling.logit_normal import LogitNormal
from lavibridge.diffusion.timestep_sampling.uniform import UniformTimesteps

UNIFORM_NUMBERS = [(number + 0.5) / 2000 for number in range(2000)]


def logit_normal(mean: float = 0.0, std: float = 1.0) -> LogitNormal:
    return LogitNormal(LogitNormal.Config(mean=mean, std=std))


def test_uniform_times_are_the_share_of_the_schedule() -> None:
    sampling = UniformTimesteps(UniformTimesteps.Config())
    assert [sampling.timestep(u, 1000) for u in (0.0, 0.2504, 0.9999)] == [0, 250, 999]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.6), (-1.0, 2.0)])
def test_the_logit_of_the_time_is_normal(mean: float, std: float) -> None:
    """Esser et al. 2024, eq. 19: the share of visits below a time is the normal's at its logit."""
    times = [logit_normal(mean, std).timestep(u, 1000) for u in UNIFORM_NUMBERS]
    for bound in (0.1, 0.3, 0.5, 0.8):
        below = sum(t < 1000 * bound for t in times) / len(times)
        assert below == pytest.approx(NormalDist(mean, std).cdf(math.log(bound / (1 - bound))), abs=0.002)
    assert times == sorted(times)


@pytest.mark.parametrize("u", [0.0, 1e-12, 0.5, 1 - 2**-53])
def test_no_random_number_leaves_the_schedule(u: float) -> None:
    samplings = (
        UniformTimesteps(UniformTimesteps.Config()),
        logit_normal(),
        logit_normal(8.0, 5.0),
        logit_normal(-8.0, 5.0),
    )
    for sampling in samplings:
        assert 0 <= sampling.timestep(u, 1000) <= 999
