"""Estimates memory and time of each cell before anything is loaded, as `lavi plan` does.

Counts training and the alignment before it, but not the generation and scoring of images after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavibridge.core.errors import LaviError
from lavibridge.core.log import progress_bar
from lavibridge.plan.devices import Device
from lavibridge.plan.plan import PlanOptions, TrainingPlan, make_plan
from lavibridge.plan.table import gib
from lavibridge.study.cells import Cell
from lavibridge.study.run_cells import is_cell_done
from lavibridge.study.study import Study


@dataclass(frozen=True, kw_only=True)
class CellCost:
    """The estimated cost of a cell."""

    cell: str
    is_done: bool
    plan: TrainingPlan | None
    """None if the cell trains nothing or cannot be planned."""
    reason: str = ""
    """The reason why there is no plan."""

    @property
    def hours(self) -> float:
        """Remaining hours of alignment and training; 0 if unknown."""
        return 0.0 if self.is_done or self.plan is None else self.plan.hours_in_all


def estimate_cell_costs(study: Study, cells: Sequence[Cell], out: Path, device: Device) -> list[CellCost]:
    """Estimate the cost of every cell; plans each condition once for all its seeds."""
    planned: dict[str, tuple[TrainingPlan | None, str]] = {}
    found = []
    with progress_bar("conditions") as bar:
        task = bar.add_task("planning", total=len({cell.condition for cell in cells}), status="")
        for cell in cells:
            if cell.condition not in planned:
                planned[cell.condition] = _planned(cell, device)
                bar.advance(task)
            plan, reason = planned[cell.condition]
            found.append(
                CellCost(cell=cell.name, is_done=is_cell_done(study, cell, out), plan=plan, reason=reason)
            )
    return found


def cost_lines(costs: Sequence[CellCost], device: Device) -> Iterator[str]:
    """One line per cell, and the total."""
    width = max(len(cost.cell) for cost in costs)
    yield f"{'':<{width}}  {'memory':>10}  {'training':>10}"
    for cost in costs:
        if cost.plan is None:
            yield f"{cost.cell:<{width}}  {cost.reason}" + ("  (done)" if cost.is_done else "")
            continue
        fits = "" if cost.plan.fits else "  does NOT fit"
        done = "  (done)" if cost.is_done else ""
        figures = f"{gib(cost.plan.memory_total):>10}  {_format_duration(cost.plan.hours_in_all):>10}"
        yield f"{cost.cell:<{width}}  {figures}{fits}{done}"
    left = [cost for cost in costs if not cost.is_done]
    unknown = sum(cost.plan is None and cost.reason.startswith("cannot") for cost in left)
    where = "a machine like this" if device.is_measured else f"one {device.name}"
    rest = f", and {unknown} that cannot be planned" if unknown else ""
    hours = _format_duration(sum((cost.hours for cost in left), start=0.0))
    yield f"{len(costs)} cells, {len(left)} to run: {hours} of training on {where}{rest}"
    yield "not counted: generating and scoring images"


def _format_duration(hours: float) -> str:
    """Format hours, or minutes if under two hours."""
    return f"{hours:,.1f} h" if hours >= 2 else f"{60 * hours:.1f} min"


def _planned(cell: Cell, device: Device) -> tuple[TrainingPlan | None, str]:
    if cell.native:
        return None, "trains nothing"
    try:
        return make_plan(cell.recipe, device, PlanOptions()), ""
    except LaviError as error:
        return None, f"cannot be planned: {error}"
