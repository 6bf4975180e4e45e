"""Formats a study's numbers: shares in per cent, others as they are."""

import math

from lavibridge.report import formatting
from lavibridge.study.ceiling_cache import CeilingAccuracy
from lavibridge.study.intervals import DifferenceInterval, MeanInterval

EMPTY_VALUE = "–"
INTERVAL_NOTE = (
    "Means over prompts and seeds with 95 % intervals over both; with one seed, over prompts only. "
    "Differences are "
    "paired by prompt and seed; Holm's method corrects p for all comparisons of the table."
)


def format_study_value(value: MeanInterval | CeilingAccuracy, unit: str) -> str:
    """Such as `71.3 % (65.9 to 76.2)` or `0.3102 (0.3076 to 0.3128)`."""
    return EMPTY_VALUE if math.isnan(value.mean) else formatting.format_estimate(_record(value), unit)


def format_study_change(change: DifferenceInterval, unit: str, p: float) -> str:
    """Such as `+3.1 points (+0.2 to +6.0), p 0.032`."""
    if math.isnan(change.mean):
        return EMPTY_VALUE
    return formatting.format_difference(_record(change), unit) + (
        "" if math.isnan(p) else f", {_format_p(p)}"
    )


def _format_p(p: float) -> str:
    """A p-value to two figures."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def format_study_sample_size(interval: MeanInterval) -> str:
    """The numbers of prompts and seeds behind a mean."""
    seeds = "1 seed" if interval.seeds == 1 else f"{interval.seeds} seeds"
    lost = f", {interval.unscored} not scored" if interval.unscored else ""
    return f"{interval.prompts} x {seeds}{lost}"


def _record(found: MeanInterval | CeilingAccuracy) -> dict[str, float | None]:
    ends = {"mean": found.mean, "low": found.low, "high": found.high}
    return {name: None if math.isnan(each) else each for name, each in ends.items()}
