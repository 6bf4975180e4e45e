"""Davidson's model against brute force, closed forms, a linear programme, and simulated studies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, linprog, minimize

from lavibridge.ab.bradley_terry import (
    FIRST,
    SECOND,
    TIE,
    BradleyTerryVotes,
    fit_strengths,
    has_finite_strengths,
)
from lavibridge.evaluation.stats import Z95

Rows = list[tuple[int, int, int]]


def ballots(
    rows: Rows, prompts: list[int] | None = None, raters: list[int] | None = None
) -> BradleyTerryVotes:
    first, second, outcome = (np.array(each, dtype=int) for each in zip(*rows, strict=True))
    every = list(range(len(rows)))
    return BradleyTerryVotes(
        first=first,
        second=second,
        outcome=outcome,
        prompt=np.array(prompts or every),
        rater=np.array(raters or [0] * len(rows)),
    )


def rows_of(runs: int, least: int = 1, most: int = 30) -> st.SearchStrategy[Rows]:
    run = st.integers(0, runs - 1)
    row = st.tuples(run, run, st.sampled_from([FIRST, SECOND, TIE])).filter(lambda row: row[0] != row[1])
    return st.lists(row, min_size=least, max_size=most)


def turned(rows: Rows) -> Rows:
    """The same votes with the sides of every pair swapped."""
    return [(b, a, {FIRST: SECOND, SECOND: FIRST, TIE: TIE}[outcome]) for a, b, outcome in rows]


def minus_log_likelihood(values: np.ndarray, rows: Rows, runs: int) -> float:
    """As the model is written in the literature, vote by vote."""
    total = 0.0
    for a, b, outcome in rows:
        ours, theirs = math.exp(values[a]), math.exp(values[b])
        neither = math.exp(values[runs]) * math.sqrt(ours * theirs)
        total -= math.log((ours, theirs, neither)[outcome] / (ours + theirs + neither))
    return total


def study(
    rng: np.random.Generator, theta: list[float], nu: float, prompts: int, raters: int
) -> BradleyTerryVotes:
    """Raters who each vote on a pair per prompt; prompts and raters favour some runs by chance."""
    runs, rows, clusters, who = len(theta), [], [], []
    pairs = [(a, b) for a in range(runs) for b in range(a + 1, runs)]
    tastes = rng.normal(0, 0.3, (raters, runs))
    for prompt in range(prompts):
        suits = np.array(theta) + rng.normal(0, 0.5, runs)
        a, b = pairs[prompt % len(pairs)]
        for rater in range(raters):
            own = suits + tastes[rater]
            chances = np.array([math.exp(own[a]), math.exp(own[b]), nu * math.exp((own[a] + own[b]) / 2)])
            rows.append((a, b, int(np.searchsorted(chances.cumsum(), rng.random() * chances.sum()))))
            clusters.append(prompt)
            who.append(rater)
    return ballots(rows, clusters, who)


def test_the_likelihood_is_the_highest_that_brute_force_finds() -> None:
    data = study(np.random.default_rng(0), [1.0, 0.2, -0.3, -0.9], 0.6, 60, 3)
    rows = list(zip(data.first.tolist(), data.second.tolist(), data.outcome.tolist(), strict=True))
    found = fit_strengths(data, 4)
    assert found is not None
    brute = minimize(minus_log_likelihood, np.zeros(5), args=(rows, 4), method="BFGS", options={"gtol": 1e-7})
    assert found.theta == pytest.approx(brute.x[:4] - brute.x[:4].mean(), abs=1e-5)
    assert found.nu == pytest.approx(math.exp(brute.x[4]), abs=1e-5)


def test_two_runs_have_a_closed_form() -> None:
    wins, losses, ties = 12, 5, 8
    rows = [(0, 1, FIRST)] * wins + [(1, 0, FIRST)] * losses + [(1, 0, TIE)] * ties
    found = fit_strengths(ballots(rows), 2)
    assert found is not None
    mean, _, high = found.interval([1.0, -1.0])
    n = len(rows)
    assert mean == pytest.approx(math.log(wins / losses))
    assert found.nu == pytest.approx(ties / math.sqrt(wins * losses))
    assert (high - mean) / Z95 == pytest.approx(math.sqrt((1 / wins + 1 / losses) * n / (n - 1)))


def test_without_ties_it_is_bradley_and_terrys() -> None:
    found = fit_strengths(ballots([(0, 1, FIRST)] * 9 + [(0, 1, SECOND)] * 3), 2)
    assert found is not None
    assert found.nu == 0
    assert found.interval([1.0, -1.0])[0] == pytest.approx(math.log(3))


def test_the_sandwich_is_that_of_numerical_derivatives() -> None:
    data = study(np.random.default_rng(3), [0.5, 0.0, -0.5], 0.8, 12, 4)
    rows = list(zip(data.first.tolist(), data.second.tolist(), data.outcome.tolist(), strict=True))
    found = fit_strengths(data, 3)
    assert found is not None
    best = np.array([*found.theta, math.log(found.nu)])

    def gradient(values: np.ndarray, some: Rows) -> np.ndarray:
        return approx_fprime(values, minus_log_likelihood, 1e-6, some, 3)

    step = 1e-4
    columns = [
        (gradient(best + step * one, rows) - gradient(best - step * one, rows)) / (2 * step)
        for one in np.eye(4)
    ]
    bread = np.linalg.pinv(np.array(columns), rcond=1e-4)
    for way, cluster in enumerate((data.prompt, data.rater)):
        names = sorted(set(cluster.tolist()))
        sums = [gradient(best, [rows[i] for i in np.flatnonzero(cluster == name)]) for name in names]
        meat = sum(np.outer(each, each) for each in sums) * len(names) / (len(names) - 1)
        expected = (bread @ meat @ bread)[:3, :3]
        assert found.covariances[way] == pytest.approx(expected, abs=2e-3)


@settings(deadline=None, max_examples=30)
@given(rows_of(3, least=4))
def test_swapping_sides_changes_nothing_and_the_order_of_runs_only_places(rows: Rows) -> None:
    found, other = fit_strengths(ballots(rows), 3), fit_strengths(ballots(turned(rows)), 3)
    moved = fit_strengths(ballots([(2 - a, 2 - b, outcome) for a, b, outcome in rows]), 3)
    if found is None:
        assert other is None
        assert moved is None
        return
    assert other is not None
    assert moved is not None
    assert other.theta == pytest.approx(found.theta, abs=1e-6)
    assert moved.theta == pytest.approx(found.theta[::-1], abs=1e-6)
    ours, theirs = found.interval([1.0, 0.0, -1.0]), moved.interval([1.0, 0.0, -1.0])
    assert theirs == pytest.approx((-ours[0], -ours[2], -ours[1]), abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(rows_of(3, most=8))
def test_strengths_are_finite_exactly_where_no_direction_improves_for_ever(rows: Rows) -> None:
    """A linear programme looks for a direction along which no vote becomes less likely, and one does more."""
    with_ties = any(outcome == TIE for _, _, outcome in rows)
    limits = []
    for a, b, outcome in rows:
        parts = np.zeros((3, 4))
        parts[FIRST, a] = parts[SECOND, b] = 1
        parts[TIE, [a, b]] = 0.5
        parts[TIE, 3] = 1
        for rival in (FIRST, SECOND, TIE) if with_ties else (FIRST, SECOND):
            if rival != outcome:
                limits.append(parts[rival] - parts[outcome])
    # Where no vote links two runs, moving one is a direction too: it shows as unbounded differences below.
    table = np.array(limits)
    bounds = [(0, 0), (-1, 1), (-1, 1), (-1, 1) if with_ties else (0, 0)]
    moves = [
        linprog(sign * aim, A_ub=table, b_ub=np.zeros(len(table)), bounds=bounds).fun
        for aim in np.eye(4)[1:]
        for sign in (1, -1)
    ]
    assert has_finite_strengths(ballots(rows), 3) == (min(moves) > -1e-9)


@pytest.mark.parametrize(
    "rows",
    [[(0, 1, FIRST)] * 5, [(0, 1, TIE)] * 5, [(0, 1, FIRST), (0, 1, TIE)], [(0, 1, FIRST), (0, 1, SECOND)]],
    ids=["always wins", "only ties", "never loses", "a third run without votes"],
)
def test_no_strengths_are_made_up(rows: Rows) -> None:
    assert fit_strengths(ballots(rows), 3 if SECOND in {row[2] for row in rows} else 2) is None


def test_copied_votes_do_not_make_the_interval_narrower() -> None:
    """Three raters who say the same about each prompt know no more than one."""
    one = study(np.random.default_rng(5), [0.4, -0.4], 0.5, 40, 1)
    rows = list(zip(one.first.tolist(), one.second.tolist(), one.outcome.tolist(), strict=True))
    three = ballots(rows * 3, list(range(40)) * 3, [0] * 40 + [1] * 40 + [2] * 40)
    alone, copied = fit_strengths(one, 2), fit_strengths(three, 2)
    assert alone is not None
    assert copied is not None
    assert copied.interval([1.0, -1.0]) == pytest.approx(alone.interval([1.0, -1.0]), abs=1e-6)


def share_held(raters: int, prompts: int, studies: int, very_many: int) -> float:
    """How often the interval holds the truth: the model fitted to very many prompts and raters."""
    theta, nu = [0.4, 0.0, -0.4], 0.7
    large = fit_strengths(study(np.random.default_rng(100), theta, nu, very_many, very_many), 3)
    assert large is not None
    truth = large.interval([1.0, 0.0, -1.0])[0]
    rng, held = np.random.default_rng(7), []
    while len(held) < studies:
        found = fit_strengths(study(rng, theta, nu, prompts, raters), 3)
        if found is not None:
            _, low, high = found.interval([1.0, 0.0, -1.0])
            held.append(low <= truth <= high)
    return sum(held) / studies


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    assert 0.8 <= share_held(raters=4, prompts=45, studies=40, very_many=80) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raters", "prompts", "least"), [(1, 60, 0.82), (5, 40, 0.88), (10, 40, 0.9), (20, 40, 0.9)]
)
def test_intervals_hold_the_truth_in_many_designs(raters: int, prompts: int, least: float) -> None:
    """One rater's taste cannot be told from the truth: that interval speaks of prompts alone."""
    held = share_held(raters, prompts, studies=400, very_many=250)
    print(f"{raters} raters, {prompts} prompts: {held:.1%} of 400 studies")
    assert least <= held <= 0.98
