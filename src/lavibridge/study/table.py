"""Builds a study's table: rows by conditions, differences from the baseline, and claims.

entry = mean with interval over prompts and seeds; difference from the baseline, paired by both; p by Holm
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from lavibridge.evaluation.stats import holm_correction
from lavibridge.study.intervals import (
    DifferenceInterval,
    MeanInterval,
    ScoreMatrix,
    difference_interval,
    mean_interval,
)
from lavibridge.study.scores import FinishedScores, scores_of, set_scores_of, unit_of_scores
from lavibridge.study.study import Study, StudyRow

_T975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The 97.5th percentile of Student's t by degrees of freedom."""


@dataclass(frozen=True, kw_only=True)
class StudyTableEntry:
    """One condition's result in one row."""

    value: MeanInterval
    difference: DifferenceInterval | None = None
    """Difference from the baseline; None for the baseline itself or without pairs."""
    p_holm: float = math.nan
    """The p-value of the difference, corrected for all comparisons of the table."""


@dataclass(frozen=True, kw_only=True)
class StudyTableRow:
    """A row with its results by condition; unfinished conditions have none."""

    spec: StudyRow
    unit: str
    entries: Mapping[str, StudyTableEntry]

    def best(self) -> str | None:
        """The condition with the best mean, unless several tie."""
        sign = 1 if self.spec.better == "higher" else -1
        known = {name: sign * each.value.mean for name, each in self.entries.items() if each.value.seeds}
        first = [name for name, mean in known.items() if mean == max(known.values())]
        return first[0] if len(first) == 1 < len(known) else None


@dataclass(frozen=True, kw_only=True)
class _ClaimVerdict:
    """The verdict on a claim in one row."""

    row: str
    verdict: str
    """`confirmed`, `contradicted`, `cannot tell`; `not compared` without scores, or for FID with one seed."""
    difference: DifferenceInterval | None


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """The results of a study."""

    study: Study
    labels: Mapping[str, str]
    """Label by condition, in order."""
    rows: tuple[StudyTableRow, ...]
    verdicts: tuple[tuple[_ClaimVerdict, ...], ...]
    """For each claim, one verdict per row."""
    missing: tuple[str, ...]
    """Unfinished cells."""

    @property
    def baseline(self) -> str:
        """The condition to compare the others with."""
        return self.study.reference()

    def unit(self, row: str) -> str:
        """The unit of a row, by its name."""
        return next(each.unit for each in self.rows if each.spec.name == row)


@dataclass(frozen=True, kw_only=True)
class _RowScores:
    """A row's scores under one condition: per picture, or per seed for set metrics."""

    scores: ScoreMatrix | None
    figures: Mapping[int, Mapping[str, Any]]

    def value(self) -> MeanInterval | None:
        """The mean; None if nothing is finished."""
        if self.scores is not None:
            return mean_interval(self.scores)
        return _over_seeds(self.figures) if self.figures else None

    def minus(self, other: "_RowScores") -> DifferenceInterval | None:
        """The difference from another condition; None if they cannot be paired."""
        if self.scores is not None and other.scores is not None:
            return difference_interval(self.scores, other.scores)
        return _between_seeds(self.figures, other.figures)


def make_study_table(study: Study, finished: FinishedScores) -> StudyTable:
    """Build the table from the finished cells."""
    labels = {each.name: each.label or each.name for each in study.grid()}
    found = {
        (row.name, name): _RowScores(
            scores=scores_of(row, name, study.seeds, finished),
            figures=set_scores_of(row, name, study.seeds, finished),
        )
        for row in study.rows
        for name in labels
    }
    rows = [
        StudyTableRow(
            spec=row,
            unit=unit_of_scores(row, finished),
            entries={
                name: StudyTableEntry(value=value, difference=None if name == study.reference() else change)
                for name in labels
                if (value := found[row.name, name].value()) is not None
                for change in [found[row.name, name].minus(found[row.name, study.reference()])]
            },
        )
        for row in study.rows
    ]
    missing = [
        f"{condition}/seed-{seed}"
        for (condition, seed), by_suite in finished.items()
        if by_suite.keys() != study.suites.keys()
    ]
    return StudyTable(
        study=study,
        labels=labels,
        rows=tuple(_corrected(rows)),
        verdicts=tuple(
            tuple(
                _verdict(row, found[row.name, claim.better].minus(found[row.name, claim.than]))
                for row in study.rows
                if row.name in claim.rows
            )
            for claim in study.claims
        ),
        missing=tuple(missing),
    )


def _over_seeds(figures: Mapping[int, Mapping[str, Any]]) -> MeanInterval:
    """A set metric with Student's interval over the seeds; for one seed, the metric's own over prompts."""
    first = next(iter(figures.values()))
    mean, reach = _student([each["mean"] for each in figures.values()])
    low, high = mean - reach, mean + reach
    if len(figures) == 1:
        low, high = (math.nan if first[end] is None else first[end] for end in ("low", "high"))
    return MeanInterval(mean=mean, low=low, high=high, seeds=len(figures), prompts=int(first["n"]))


def _between_seeds(
    ours: Mapping[int, Mapping[str, Any]], theirs: Mapping[int, Mapping[str, Any]]
) -> DifferenceInterval | None:
    """Pair set metrics by seed; there is no p-value, and None for fewer than two seeds."""
    shared = [seed for seed in ours if seed in theirs]
    if len(shared) < 2:
        return None
    mean, reach = _student([ours[seed]["mean"] - theirs[seed]["mean"] for seed in shared])
    prompts = int(ours[shared[0]]["n"])
    return DifferenceInterval(
        mean=mean, low=mean - reach, high=mean + reach, p=math.nan, seeds=len(shared), prompts=prompts
    )


def _student(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half the width of its 95 % interval; NaN half-width for a single value."""
    count = len(values)
    if count == 1:
        return values[0], math.nan
    return fmean(values), _T975.get(count - 1, 2.262) * stdev(values) / math.sqrt(count)


def _corrected(rows: Sequence[StudyTableRow]) -> list[StudyTableRow]:
    """Correct p-values for all comparisons of the table."""
    tested = [
        (number, name, entry.difference.p)
        for number, row in enumerate(rows)
        for name, entry in row.entries.items()
        if entry.difference is not None
    ]
    places = [(number, name) for number, name, _ in tested]
    adjusted = dict(zip(places, holm_correction([p for _, _, p in tested]), strict=True))
    return [
        replace(
            row,
            entries={
                name: replace(entry, p_holm=adjusted.get((number, name), math.nan))
                for name, entry in row.entries.items()
            },
        )
        for number, row in enumerate(rows)
    ]


def _verdict(row: StudyRow, found: DifferenceInterval | None) -> _ClaimVerdict:
    """Decide the claim if the interval of the paired difference excludes zero."""
    if found is None or not found.seeds:
        return _ClaimVerdict(row=row.name, verdict="not compared", difference=None)
    sign = 1 if row.better == "higher" else -1
    low, high = sorted((sign * found.low, sign * found.high))
    verdict = "confirmed" if low > 0 else "contradicted" if high < 0 else "cannot tell"
    return _ClaimVerdict(row=row.name, verdict=verdict, difference=found)
