"""Which curves a report shows, taken from the rows of log.jsonl and align.jsonl.

loss (smoothed over it raw) | loss by ten bins of diffusion time, first and last tenth of the run
gradient norm of each part  | images per second
loss on held-out pictures, where some are | what is missed of the own text encoder, where it was aligned to
"""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lavibridge.report.charts import Series, bars, chart, smooth
from lavibridge.report.records import RunRecord

PARTS = {"language_lora": "language LoRA", "connector": "connector", "vision_lora": "vision LoRA"}

BINS = tuple(f"{low / 10:.1f}" for low in range(10))


def curves(runs: Sequence[RunRecord]) -> list[tuple[str, str, str]]:
    """(title, what it shows, SVG) of every chart that the runs have values for."""
    logged = [run for run in runs if len(run.rows) > 1]
    if not logged:
        return []
    found = [
        (
            "Loss",
            "Mean squared error of the denoiser's prediction at each step, faint, and its moving average.",
            _per_step(logged, "Loss", "loss", "loss", smoothed=True),
        )
    ]
    found += [
        _by_time(run, named=len(logged) > 1)
        for run in logged
        if any(run_row_has_bins(row) for row in run.rows)
    ]
    found += [_gradients(run, named=len(logged) > 1) for run in logged if _parts(run)]
    if any(_values(run, "images_per_second") for run in logged):
        title, told = "Speed", "Training pictures per second, moving average."
        found.append((title, told, _per_step(logged, title, "images_per_second", "images/s", smoothed=True)))
    if any(run.validations for run in logged):
        found.append(_held_out([run for run in logged if run.validations]))
    if any(run.aligned for run in logged):
        found.append(_alignment([run for run in logged if run.aligned]))
    return found


def run_row_has_bins(row: dict[str, Any]) -> bool:
    """Whether a row of the log has a loss in at least one bin of time."""
    bins = row.get("loss_by_time")
    return isinstance(bins, list) and any(value is not None for value in bins)


def number(value: Any) -> float:
    """A logged value as a number; what is missing or null is NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _values(run: RunRecord, key: str) -> list[float]:
    values = [number(row.get(key)) for row in run.rows]
    return values if any(math.isfinite(value) for value in values) else []


def _per_step(runs: Sequence[RunRecord], title: str, key: str, label: str, *, smoothed: bool) -> str:
    series = []
    for run in runs:
        values = _values(run, key)
        if values:
            steps = [float(row["step"]) for row in run.rows]
            line = smooth(values, max(len(values) // 20, 1)) if smoothed else values
            series.append(Series(name=run.name, x=steps, y=line, faint=values if len(runs) == 1 else ()))
    return chart(title, "step", label, series)


def _held_out(runs: Sequence[RunRecord]) -> tuple[str, str, str]:
    told = (
        "Loss on pictures that were never trained on, always at the same times with the same noise: of the "
        "weights, and of their moving average where one is kept."
    )
    series = []
    for run in runs:
        measured = [(float(row["step"]), row["validation"]) for row in run.validations]
        for whose, values in (
            ("weights", measured),
            ("average", [(step, each["ema"]) for step, each in measured if each.get("ema")]),
        ):
            if values:
                name = whose if len(runs) == 1 else f"{run.name}, {whose}"
                losses = [number(each.get("loss")) for _, each in values]
                series.append(Series(name=name, x=[step for step, _ in values], y=losses))
    return "Held-out loss", told, chart("Held-out loss", "step", "loss", series)


def _alignment(runs: Sequence[RunRecord]) -> tuple[str, str, str]:
    told = (
        "Before the first step: the share of what the cross-attention layers hear from the own text "
        "encoder that they miss from the connector."
    )
    series = [
        Series(
            name=run.name,
            x=[float(row["step"]) for row in run.aligned],
            y=[number(row.get("missed")) for row in run.aligned],
        )
        for run in runs
    ]
    return "Alignment", told, chart("Alignment", "step of the alignment", "missed", series)


def _titled(title: str, run: RunRecord, named: bool) -> str:
    return f"{title}, {run.name}" if named else title


def _by_time(run: RunRecord, *, named: bool) -> tuple[str, str, str]:
    """Loss against diffusion time at the start and at the end: where the bridge has learnt."""
    span = max(len(run.rows) // 10, 1)
    groups = [
        Series(name=f"first {span} steps", x=(), y=_mean_bins(run.rows[:span])),
        Series(name=f"last {span} steps", x=(), y=_mean_bins(run.rows[-span:])),
    ]
    title = _titled("Loss by diffusion time", run, named)
    told = "Mean loss in ten bins of diffusion time, from 0 (nearly clean) to 1 (pure noise)."
    return title, told, bars(title, "diffusion time, from", "loss", BINS, groups)


def _mean_bins(rows: Sequence[dict[str, Any]]) -> list[float]:
    means = []
    for place in range(len(BINS)):
        values = [number(row["loss_by_time"][place]) for row in rows if run_row_has_bins(row)]
        finite = [value for value in values if math.isfinite(value)]
        means.append(fmean(finite) if finite else math.nan)
    return means


def _parts(run: RunRecord) -> list[str]:
    seen = {name for row in run.rows for name in row.get("gradient_norm") or {}}
    return [name for name in PARTS if name in seen]


def _gradients(run: RunRecord, *, named: bool) -> tuple[str, str, str]:
    series = []
    steps = [float(row["step"]) for row in run.rows]
    for part in _parts(run):
        values = [number((row.get("gradient_norm") or {}).get(part)) for row in run.rows]
        series.append(Series(name=PARTS[part], x=steps, y=smooth(values, max(len(values) // 20, 1))))
    title = _titled("Gradient norm", run, named)
    told = "Length of each part's gradient before clipping, moving average, logarithmic scale."
    return title, told, chart(title, "step", "gradient norm", series, log_y=True)
