"""Extracts the curves of a report from the rows of log.jsonl and align.jsonl.

loss, raw and smoothed     | loss by ten bins of diffusion time: a run's start and end, or several runs' ends
held-out loss, and by time | gradient norm of each part | speed | variance unexplained by alignment

    chart = {title, description, kind: lines or bars, x_label, y_label, log_y, table,
             series: [{name, x, y, faint}]}

`x` of bars holds names. The table gives the chart in numbers. Points are thinned and rounded to six digits.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from lavibridge.report.run_record import RunRecord
from lavibridge.report.run_summary import PART_LABELS
from lavibridge.report.series import (
    round_series,
    smooth_series,
    table_of_bin_series,
    table_of_line_series,
    thin_series,
)

_BINS = tuple(f"{low / 10:.1f} to {(low + 1) / 10:.1f}" for low in range(10))


def make_curves(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Every chart for which the runs have values."""
    makers: tuple[Callable[[Sequence[RunRecord]], Iterable[dict[str, Any]]], ...] = (
        _loss,
        _by_time,
        _held_out,
        _held_out_by_time,
        _gradients,
        _speed,
        _alignment,
    )
    return [chart for make in makers for chart in make(runs) if chart["series"]]


def _number(value: Any) -> float:
    """A logged value as a number; NaN if it is missing or null."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _loss(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    description = "Mean squared error of the denoiser's prediction at each step, and its moving average."
    series = [_smoothed(run, "loss", run.name, faint=len(runs) == 1) for run in runs if len(run.rows) > 1]
    yield _lines("Loss", description, "loss", series)


def _speed(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    series = [
        _smoothed(run, "images_per_second", run.name)
        for run in runs
        if len(run.rows) > 1 and any("images_per_second" in row for row in run.rows)
    ]
    yield _lines("Speed", "Training images per second, moving average.", "images/s", series)


def _by_time(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """The loss by diffusion time: one run's start and end, or several runs' ends."""
    logged = [run for run in runs if any(_has_bins(row) for row in run.rows)]
    series = []
    for run in logged:
        span = max(len(run.rows) // 10, 1)
        if len(runs) == 1 and len(run.rows) > 1:
            series.append(_bars(_span("first", span), _mean_bins(run.rows[:span])))
        last = _span("last", span)
        series.append(_bars(last if len(runs) == 1 else f"{run.name}, {last}", _mean_bins(run.rows[-span:])))
    description = "Mean loss in ten bins of diffusion time, from 0 (nearly clean) to 1 (pure noise)."
    yield _bins("Loss by diffusion time", description, series)


def _held_out(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    description = (
        "Loss on images held out from training, always at the same times with the same noise: for the "
        "weights, and for their moving average if the run keeps one."
    )
    series = []
    for run in runs:
        measured = [(float(row["step"]), row["validation"]) for row in run.validations]
        averages = [(step, each["ema"]) for step, each in measured if each.get("ema")]
        for whose, found in (("weights", measured), ("average", averages)):
            if found:
                name = whose if len(runs) == 1 else f"{run.name}, {whose}"
                steps = [step for step, _ in found]
                series.append(_line(name, steps, [_number(each.get("loss")) for _, each in found]))
    yield _lines("Held-out loss", description, "loss", series)


def _held_out_by_time(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    measured = [run for run in runs if run.validations]
    series = []
    lengths = set()
    for run in measured:
        whole = run.validations[-1]["validation"]
        values = (whole.get("ema") or whole).get("loss_by_time") or []
        lengths.add(len(values))
        places = [f"{(place + 0.5) / len(values):.2f}" for place in range(len(values))]
        name = run.name if len(runs) > 1 else "last measurement"
        series.append({**_bars(name, [_number(value) for value in values]), "x": places})
    description = "The last measurement on held-out images, at each of its times from 0 (nearly clean) to 1."
    if len(lengths) == 1 and lengths != {0}:  # runs that measure at different times cannot share bars
        yield _bins("Held-out loss by diffusion time", description, series)


def _gradients(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    description = "Length of each part's gradient before clipping, moving average, logarithmic scale."
    for run in runs:
        seen = {name for row in run.rows for name in row.get("gradient_norm") or {}}
        steps = [float(row["step"]) for row in run.rows]
        series = []
        for part in (name for name in PART_LABELS if name in seen and len(run.rows) > 1):
            values = [_number((row.get("gradient_norm") or {}).get(part)) for row in run.rows]
            series.append(_line(PART_LABELS[part], steps, smooth_series(values, max(len(values) // 20, 1))))
        title = "Gradient norm" if len(runs) == 1 else f"Gradient norm, {run.name}"
        yield _lines(title, description, "gradient norm", series) | {"log_y": True}


def _alignment(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    description = (
        "Before the first step: the fraction of the teacher's variance that the bridge leaves unexplained "
        "(fvu), for the captions of each step and for held-out captions."
    )
    series = []
    for run in (run for run in runs if run.alignment):
        for key, name in (("fvu", run.name), ("held_out_fvu", f"{run.name}, held out")):
            rows = [row for row in run.alignment if key in row]
            steps = [float(row["step"]) for row in rows]
            if rows:
                series.append(_line(name, steps, [_number(row[key]) for row in rows]))
    yield _lines("Alignment", description, "fvu", series) | {"x_label": "step of the alignment"}


def _span(which: str, count: int) -> str:
    return f"{which} {count} steps" if count > 1 else f"{which} step"


def _has_bins(row: dict[str, Any]) -> bool:
    bins = row.get("loss_by_time")
    return isinstance(bins, list) and any(value is not None for value in bins)


def _mean_bins(rows: Sequence[dict[str, Any]]) -> list[float]:
    means = []
    for place in range(len(_BINS)):
        values = [_number(row["loss_by_time"][place]) for row in rows if _has_bins(row)]
        finite = [value for value in values if math.isfinite(value)]
        means.append(fmean(finite) if finite else math.nan)
    return means


def _smoothed(run: RunRecord, key: str, name: str, *, faint: bool = False) -> dict[str, Any]:
    values = [_number(row.get(key)) for row in run.rows]
    steps = [float(row["step"]) for row in run.rows]
    made = _line(name, steps, smooth_series(values, max(len(values) // 20, 1)))
    return made | ({"faint": round_series(thin_series(values))} if faint else {})


def _line(name: str, x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    return {"name": name, "x": round_series(thin_series(x)), "y": round_series(thin_series(y)), "faint": []}


def _bars(name: str, y: Sequence[float]) -> dict[str, Any]:
    return {"name": name, "x": list(_BINS), "y": round_series(y), "faint": []}


def _lines(title: str, description: str, y_label: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    named = {
        "title": title,
        "description": description,
        "kind": "lines",
        "x_label": "step",
        "y_label": y_label,
    }
    return {**named, "log_y": False, "series": series, "table": table_of_line_series(series)}


def _bins(title: str, description: str, series: list[dict[str, Any]]) -> dict[str, Any]:
    named = {
        "title": title,
        "description": description,
        "kind": "bars",
        "x_label": "diffusion time",
        "y_label": "loss",
    }
    return {**named, "log_y": False, "series": series, "table": table_of_bin_series(series)}
