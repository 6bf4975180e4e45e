"""Curves as SVG text that takes its ink from the page, so that light, dark and print all read well.

Matplotlib draws; axis ink is written as one marked colour and then replaced by `currentColor`. The text stays
text (it can be searched, and read aloud), and the same input gives the same bytes.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lavibridge.core.errors import RunError

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError:
    raise RunError(
        "reports draw their curves with matplotlib, which is missing: pip install 'lavibridge[report]'"
    ) from None

INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""

COLORS = ("#2f7ed8", "#d9622b", "#2e9d62", "#a05cc4", "#b58a1b", "#cf4f7d")
"""Series colours with a contrast of at least 3:1 on white and on near-black."""

DASHES = ("-", "--", "-.", ":")

POINTS = 600
"""Most points drawn of a line: more than the chart is wide would only make the page heavy."""

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named line; `faint` is the same line before smoothing, drawn behind it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: Sequence[float] = ()


def smooth(values: Sequence[float], span: int) -> list[float]:
    """Exponential moving average over about `span` values, corrected for its start; NaN is passed over."""
    keep, total, weight, smoothed = 1 - 1 / max(span, 1), 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight if weight else math.nan)
    return smoothed


def thin(values: Sequence[float]) -> list[float]:
    """At most POINTS values, evenly spread, the first and the last among them."""
    if len(values) <= POINTS:
        return list(values)
    return [values[round(place * (len(values) - 1) / (POINTS - 1))] for place in range(POINTS)]


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series], *, log_y: bool = False) -> str:
    """Lines as an inline SVG with an accessible name."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes: Any = figure.subplots()
        for number, each in enumerate(series):
            color, dash = COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
            if each.faint:
                axes.plot(thin(each.x), thin(each.faint), color=color, alpha=0.25, linewidth=0.8)
            axes.plot(thin(each.x), thin(each.y), color=color, linestyle=dash, linewidth=1.6, label=each.name)
        if log_y and any(value > 0 for each in series for value in each.y):
            axes.set_yscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        return _svg(figure, title, _told(series))


def bars(title: str, x_label: str, y_label: str, names: Sequence[str], groups: Sequence[Series]) -> str:
    """Grouped bars as an inline SVG with an accessible name; the x of each group is not used."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(6.4, 3.2), layout="constrained")
        axes: Any = figure.subplots()
        width = 0.8 / max(len(groups), 1)
        for number, each in enumerate(groups):
            places = [place + (number - (len(groups) - 1) / 2) * width for place in range(len(names))]
            axes.bar(places, each.y, width=width, color=COLORS[number % len(COLORS)], label=each.name)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(visible=False, axis="x")
        if len(groups) > 1:
            figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
        return _svg(figure, title, _told(groups))


def _told(series: Sequence[Series]) -> str:
    """What a reader who cannot see the chart is told."""
    told = []
    for each in series:
        values = [value for value in each.y if math.isfinite(value)]
        if values:
            told.append(f"{each.name} goes from {values[0]:.3g} to {values[-1]:.3g}")
    return "; ".join(told) or "no values"


def _svg(figure: Figure, title: str, told: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    referred = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in referred else "", svg)
    label = f"{title}: {told}".replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
