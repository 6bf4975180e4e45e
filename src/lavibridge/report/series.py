"""Prepares series for charts: smooths, thins and rounds them, and summarises them in a table."""

import math
from collections.abc import Sequence
from typing import Any

SERIES_POINTS = 300
"""Maximum points per line; more would only make the page larger."""


def smooth_series(values: Sequence[float], span: int) -> list[float]:
    """Exponential moving average over about `span` values, corrected for its start; skips NaN."""
    keep, total, weight, smoothed = 1 - 1 / max(span, 1), 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight if weight else math.nan)
    return smoothed


def thin_series(values: Sequence[float]) -> list[float]:
    """Select at most POINTS values, evenly spread, including the first and the last."""
    if len(values) <= SERIES_POINTS:
        return list(values)
    return [values[round(place * (len(values) - 1) / (SERIES_POINTS - 1))] for place in range(SERIES_POINTS)]


def round_series(values: Sequence[float]) -> list[float | None]:
    """Round to six digits for JSON; non-finite values become null."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def table_of_line_series(series: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first, lowest, highest and last value of each line."""
    rows = []
    for each in series:
        values = [value for value in each["y"] if value is not None]
        if values:
            rows.append({"name": each["name"], "values": [values[0], min(values), max(values), values[-1]]})
    return {"columns": ["first", "lowest", "highest", "last"], "rows": rows}


def table_of_bin_series(series: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The value of each bar."""
    names = series[0]["x"] if series else []
    rows = [
        {"name": name, "values": [each["y"][place] for each in series]} for place, name in enumerate(names)
    ]
    return {"columns": [each["name"] for each in series], "rows": rows}
