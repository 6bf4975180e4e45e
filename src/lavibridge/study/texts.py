"""Figures of a study in words, the same on every page: shares in per cent, others as they are."""

import math

from lavibridge.study.intervals import Difference, Interval
from lavibridge.study.knowledge import Share

NOTHING = "–"
HOW = (
    "Means over prompts and seeds with 95 % intervals over both (of one seed: over prompts). Differences are "
    "paired by prompt and seed; p is corrected for all comparisons of the table (Holm)."
)


def value(found: Interval | Share, unit: str) -> str:
    """Such as `71.3 % (65.9 to 76.2)` or `0.3102 (0.3076 to 0.3128)`."""
    if math.isnan(found.mean):
        return NOTHING
    form, scale, mark = _form(unit)
    text = form.format(scale * found.mean) + mark
    if math.isnan(found.low) or math.isnan(found.high):
        return text
    return f"{text} ({form.format(scale * found.low)} to {form.format(scale * found.high)})"


def change(found: Difference, unit: str, p: float) -> str:
    """Such as `+3.1 (0.2 to 6.0), p 0.032`; shares in percentage points."""
    if math.isnan(found.mean):
        return NOTHING
    form, scale, _ = _form(unit)
    ends = f"{form.format(scale * found.low)} to {form.format(scale * found.high)}"
    sign = "" if found.mean < 0 else "+"
    tail = "" if math.isnan(p) else f", {chance(p)}"
    return f"{sign}{form.format(scale * found.mean)} ({ends}){tail}"


def chance(p: float) -> str:
    """A p-value to two figures."""
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def size(found: Interval) -> str:
    """On how much a figure stands."""
    seeds = "1 seed" if found.seeds == 1 else f"{found.seeds} seeds"
    lost = f", {found.unscored} not scored" if found.unscored else ""
    return f"{found.prompts} x {seeds}{lost}"


def _form(unit: str) -> tuple[str, float, str]:
    return ("{:.1f}", 100.0, " %") if unit == "share" else ("{:.4g}", 1.0, "")
