"""Draws a dot plot with intervals for each row, as SVG in the page's text colour.

t5-small   |---o---|
t5-base        |----o----|          dashed: the baseline's mean
"""

import math
from collections.abc import Iterator, Mapping
from html import escape

from lavibridge.study import formatting
from lavibridge.study.table import StudyTable, StudyTableRow

_WIDTH, _LEFT, _RIGHT, _LINE, _TOP, _BOTTOM = 340, 120, 22, 22, 8, 26
_LONGEST = 17
"""Maximum characters of a label beside a chart."""


def interval_plots(table: StudyTable) -> Iterator[tuple[str, str]]:
    """Yield (row name, SVG) for each row with at least one score."""
    for row in table.rows:
        if any(not math.isnan(entry.value.mean) for entry in row.entries.values()):
            yield row.spec.name, _plot(row, table.labels, table.baseline)


def _plot(row: StudyTableRow, labels: Mapping[str, str], baseline: str) -> str:
    """One chart, with an accessible name that lists all its values."""
    known = {name: each.value for name, each in row.entries.items() if not math.isnan(each.value.mean)}
    ends = [end for each in known.values() for end in (each.low, each.mean, each.high) if not math.isnan(end)]
    low, high = (0.0, 1.0) if row.unit == "share" else _padded(min(ends), max(ends))
    height = _TOP + _LINE * len(known) + _BOTTOM

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low)

    parts = []
    for tick in (low, (low + high) / 2, high):
        text = f"{100 * tick:.0f} %" if row.unit == "share" else f"{tick:.3g}"
        parts.append(_upright(x(tick), height, 'stroke-opacity=".15"'))
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 9}" text-anchor="middle">{text}</text>')
    if baseline in known:
        parts.append(_upright(x(known[baseline].mean), height, 'stroke-dasharray="4 3" stroke-opacity=".6"'))
    for number, (name, found) in enumerate(known.items()):
        y = _TOP + _LINE * (number + 0.5)
        label = escape(_short(labels[name]))
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        if not math.isnan(found.low):
            ends_at = f'x1="{x(found.low):.1f}" x2="{x(found.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(f'<line {ends_at} class="reach"/>')
        parts.append(f'<circle cx="{x(found.mean):.1f}" cy="{y:.1f}" r="4" class="dot"/>')
    description = "; ".join(
        f"{labels[name]} {formatting.format_study_value(found, row.unit)}" for name, found in known.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(f"{row.spec.name}: {description}")}">{"".join(parts)}</svg>'
    )


def _upright(x: float, height: int, style: str) -> str:
    ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"'
    return f'<line {ends} stroke="currentColor" {style}/>'


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
