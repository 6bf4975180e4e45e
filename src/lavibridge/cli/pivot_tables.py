"""The tables that `lavi pivot` prints."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lavibridge.evaluation.agreement import Association
    from lavibridge.evaluation.pivot_scores import PivotScores
    from lavibridge.evaluation.stats import Estimate
    from lavibridge.pivot.folder import PivotFolder
    from lavibridge.training.pivot.ranking import RankedLanguage

Row = tuple[str, ...]
NONE = "-"
"""What a table has in place of a figure that there is not."""
FIGURES: Mapping[str, str] = {
    "ridge_fvu": "ridge fvu",
    "fvu": "fvu",
    "unseen_words_fvu": "fvu, unseen words",
    "parameters": "parameters",
}
"""The figures of a ranking that cost no picture, and their titles."""


def print_table(rows: Iterable[Row]) -> None:
    """Print rows in columns."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def half_rows(pivot: "PivotFolder") -> Iterator[Row]:
    """Each half of a pivot, and how well it learned."""
    from lavibridge.pivot.folder import SIDES
    from lavibridge.pivot.half import read_half

    yield "half", "model", "fvu", "n", "learned from"
    for side in SIDES:
        for name in pivot.names(side):
            half = read_half(pivot, side, name).description
            learning = half.learning
            fvu = "unknown" if learning.fvu is None else f"{learning.fvu:.1%}"
            learned = f"{learning.teacher}, {learning.captions:,} captions"
            yield f"{side}/{name}", str(half.model["source"]), fvu, str(learning.held_out), learned


def pair_rows(pivot: "PivotFolder", scores: "PivotScores", title: str) -> Iterator[Row]:
    """The score of each pair: measured with its n, predicted with its interval, or a dash."""
    visions = pivot.names("vision")
    yield title, *visions
    for language in pivot.names("language"):
        yield language, *(_pair_cell(scores, (language, vision)) for vision in visions)


def _pair_cell(scores: "PivotScores", pair: tuple[str, str]) -> str:
    for mark, found in (("", scores.measured), ("*", scores.measured_otherwise)):
        if pair in found:
            return f"{found[pair].mean:.1%} (n {found[pair].n}){mark}"
    if pair in scores.predicted:
        predicted = scores.predicted[pair]
        return f"~{predicted.mean:.0%} ({predicted.low:.0%} to {predicted.high:.0%})"
    return NONE


def print_pair_legend(scores: "PivotScores") -> None:
    """Say what the marks in the table of pairs mean."""
    if scores.predicted:
        left_out = scores.left_out
        print(
            "~ predicted, never measured: logit(share) = language model + vision model, fitted to the "
            f"{len(scores.measured)} measured pairs, with a 95 % interval"
        )
        if left_out.n:
            print(
                f"  predicted from the other pairs, a measured pair is {100 * left_out.error:.1f} points off "
                f"on average (n {left_out.n} pairs)"
            )
        else:
            print("  no measured pair is left over to check this sum")
    if scores.measured_otherwise:
        print("* measured with other settings or prompts than most pairs; it predicts nothing")


def print_ranking(
    ranked: Sequence["RankedLanguage"], correlations: Mapping[str, Mapping[str, "Association"]]
) -> None:
    """Print the figures of each language model, and how well the cheap ones order the models."""
    print_table(_rank_rows(ranked))
    if correlations:
        print("\nSpearman's rank correlation with the measured scores (at +1 both order the models alike)")
        print_table(_correlation_rows(correlations))


def _rank_rows(ranked: Sequence["RankedLanguage"]) -> Iterator[Row]:
    """A row for each language model; columns without any figure are left out."""
    categories = list(dict.fromkeys(category for each in ranked for category in each.scores))
    columns: Mapping[str, list[str]] = {
        "language model": [each.name + (" (reference)" if each.is_reference else "") for each in ranked],
        FIGURES["ridge_fvu"]: [_share(each.ridge_fvu) for each in ranked],
        FIGURES["fvu"]: [_share(each.fvu) for each in ranked],
        FIGURES["unseen_words_fvu"]: [_share(each.unseen_words_fvu) for each in ranked],
        **{category: [_interval(each.scores.get(category)) for each in ranked] for category in categories},
        FIGURES["parameters"]: [f"{each.parameters / 1e6:.1f} M" for each in ranked],
        "ms a prompt": [f"{each.milliseconds:.1f}" for each in ranked],
        "memory": [f"{each.megabytes:.1f} MB" for each in ranked],
    }
    kept = {name: cells for name, cells in columns.items() if any(cell != NONE for cell in cells)}
    yield tuple(kept)
    yield from zip(*kept.values(), strict=True)


def _correlation_rows(correlations: Mapping[str, Mapping[str, "Association"]]) -> Iterator[Row]:
    """A row for each cheap figure: rho, its p-value and the number of models, by category."""
    categories = list(dict.fromkeys(category for found in correlations.values() for category in found))
    yield "figure", *categories
    for figure, found in correlations.items():
        yield FIGURES[figure], *(_association(found.get(category)) for category in categories)


def _association(found: "Association | None") -> str:
    if found is None or math.isnan(found.rho):
        return NONE
    return f"{found.rho:+.2f} (p {found.p:.2g}, n {found.n})"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _interval(score: "Estimate | None") -> str:
    return NONE if score is None else f"{score.mean:.1%} ({score.low:.1%} to {score.high:.1%})"
