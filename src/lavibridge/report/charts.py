"""Draws the charts of report.json as SVG in the page's own text colour, for light, dark and print.

Matplotlib draws the axes in a placeholder colour, which `currentColor` then replaces. Text stays text, for
search and screen readers. The same input gives the same bytes. Series differ in dashes and hatches as well as
in colour.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lavibridge.core.errors import RunError

try:
    import matplotlib
    from matplotlib.figure import Figure
except ImportError:
    raise RunError("reports need matplotlib to draw their curves: pip install 'lavibridge[report]'") from None

CHART_INK = "#010203"
"""A placeholder for the page's text colour until the SVG is written."""

_COLORS = ("#2f7ed8", "#d9622b", "#2e9d62", "#a05cc4", "#b58a1b", "#cf4f7d")
"""Series colours with a contrast of at least 3:1 on white and on near-black."""

_DASHES = ("-", "--", "-.", ":")

_HATCHES = ("", "////", "....", "xxxx", "----", "++++")

_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": CHART_INK,
    "axes.labelcolor": CHART_INK,
    "axes.edgecolor": CHART_INK,
    "xtick.color": CHART_INK,
    "ytick.color": CHART_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": CHART_INK,
    "grid.alpha": 0.12,
    "hatch.linewidth": 0.6,
}


def draw_chart(chart: Mapping[str, Any]) -> str:
    """Draw a chart of report.json as an inline SVG with an accessible name."""
    series = chart["series"]
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": chart["title"]}):
        figure = Figure(figsize=(6.4, 3.4), layout="constrained")
        axes: Any = figure.subplots()
        (_draw_bars if chart["kind"] == "bars" else _draw_lines)(axes, series)
        if chart["log_y"] and any(value > 0 for each in series for value in _values(each["y"])):
            axes.set_yscale("log")
        axes.set_xlabel(chart["x_label"])
        axes.set_ylabel(chart["y_label"])
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
        return _svg(figure, chart["title"], _describe_series(series))


def _describe_series(series: Sequence[Mapping[str, Any]]) -> str:
    """Describe the chart in words, for screen readers."""
    found = []
    for each in series:
        values = _values(each["y"])
        if values:
            found.append(f"{each['name']} goes from {values[0]:.3g} to {values[-1]:.3g}")
    return "; ".join(found) or "no values"


def _draw_lines(axes: Any, series: Sequence[Mapping[str, Any]]) -> None:
    for number, each in enumerate(series):
        color, dash = _COLORS[number % len(_COLORS)], _DASHES[number % len(_DASHES)]
        if each["faint"]:
            axes.plot(each["x"], _gaps(each["faint"]), color=color, alpha=0.25, linewidth=0.8)
        marker = "o" if len(each["x"]) == 1 else ""
        drawn = {"color": color, "linestyle": dash, "linewidth": 1.6, "marker": marker}
        axes.plot(each["x"], _gaps(each["y"]), **drawn, label=each["name"])


def _draw_bars(axes: Any, series: Sequence[Mapping[str, Any]]) -> None:
    names = [name.split(" to ")[0] for name in series[0]["x"]]
    width = 0.8 / len(series)
    for number, each in enumerate(series):
        places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(names))]
        look = {"color": _COLORS[number % len(_COLORS)], "hatch": _HATCHES[number % len(_HATCHES)]}
        axes.bar(
            places,
            _gaps(each["y"]),
            width=width,
            edgecolor=CHART_INK,
            linewidth=0.4,
            label=each["name"],
            **look,
        )
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.grid(visible=False, axis="x")


def _values(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _svg(figure: Figure, title: str, description: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(CHART_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    referred = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in referred else "", svg)
    label = f"{title}: {description}".replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
