"""Formats the numbers of report.json for the page.

share 0.713      71.3 %                    with its interval      71.3 % (65.9 to 76.2)
others           0.3102                                           0.3102 (0.3076 to 0.3128)
difference       +12.3 points              of shares; others      +0.0121
"""

from collections.abc import Mapping
from typing import Any

SHARE_UNIT = "share"
"""The unit of metrics whose values are shares, which the page shows in per cent."""


def format_score(value: float | int, unit: str = "") -> str:
    """Format one value of a metric."""
    return f"{100 * value:.1f} %" if unit == SHARE_UNIT else f"{value:.4g}"


def format_estimate(value: Mapping[str, Any], unit: str = "") -> str:
    """Format a mean, with its interval if it has one."""
    mean = format_score(value["mean"], unit)
    if value["low"] is None or value["high"] is None:
        return mean
    low, high = (format_score(value[end], unit).removesuffix(" %") for end in ("low", "high"))
    return f"{mean} ({low} to {high})"


def format_difference(value: Mapping[str, Any], unit: str = "") -> str:
    """Format a difference and its interval, with signs."""
    scale, form, mark = (100.0, "{:+.1f}", " points") if unit == SHARE_UNIT else (1.0, "{:+.4g}", "")
    mean = form.format(scale * value["mean"]) + mark
    if value["low"] is None or value["high"] is None:
        return mean
    low, high = (form.format(scale * value[end]) for end in ("low", "high"))
    return f"{mean} ({low} to {high})"


def format_fact(value: Any, unit: str) -> str:
    """Format a fact about a run; `unit` is `text`, `count`, `seconds`, `bytes`, `MiB` or `number`."""
    if value is None:
        return "not known"
    if unit == "count":
        return f"{value:,}"
    if unit == "seconds":
        return _duration(value)
    if unit == "bytes":
        return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"
    if unit == "MiB":
        return f"{value:,.0f} MiB"
    return f"{value:.3g}" if unit == "number" else str(value)


def join_names(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _duration(seconds: float | int) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
