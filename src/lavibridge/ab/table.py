"""Formats the statistics of a study as tables, readable without colour and in 80 columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.table import Table

from lavibridge.ab.key import QUESTIONS

_UNKNOWN = "-"


def ab_tables(scores: Mapping[str, Any]) -> Iterator[Table | str]:
    """Yield the tables and lines of `score_ab_votes`, in reading order."""
    kinds = ("person", "people") if scores["of_people"] else ("metric", "metrics")
    yield (
        f"study {scores['study']}, suite {scores['suite']}: {scores['votes']} votes by "
        f"{_many(len(scores['raters']), *kinds)} on "
        f"{scores['comparisons']} comparisons, and {scores['votes_on_repeats']} on repeats"
    )
    for question, each in scores["questions"].items():
        yield ""
        yield f"{question}: {QUESTIONS[question]}"
        yield _pairs(each)
        if each["strengths"] is None:
            yield "no strengths: some run never lost or never won, or all votes are ties; see the win rates"
        elif len(scores["runs"]) > 2:
            yield _strengths(each)
        yield f"agreement of raters: {_agreement(each['agreement'])}"
        for name, sided in each["metrics"].items():
            yield f"the metric {name} agrees with the people in {_share(sided)} of n {sided['n']}"
    yield ""
    yield _raters(scores["raters"])
    if scores["retest"]["n"]:
        yield f"same answer to repeats: {_share(scores['retest'])}, n {scores['retest']['n']}"


def _pairs(each: Mapping[str, Any]) -> Table:
    table = _table("run", "against", "n", "won/tied/lost", "win rate", "p votes", "p prompts")
    for pair in each["pairs"]:
        counts = "/".join(str(pair[name]) for name in ("wins", "ties", "losses"))
        tests = [f"{pair[name]:.3f}" if pair["n"] else _UNKNOWN for name in ("p_votes", "p_prompts")]
        row = (pair["run"], pair["other"], str(pair["n"]), counts, _share(pair["win_rate"]), *tests)
        table.add_row(*row)
    return table


def _strengths(each: Mapping[str, Any]) -> Table:
    table = _table("run", "points", "95 % interval")
    points = sorted(each["strengths"]["points"].items(), key=lambda one: -one[1]["mean"])
    for name, value in points:
        table.add_row(name, f"{value['mean']:+.0f}", f"{value['low']:+.0f} to {value['high']:+.0f}")
    return table


def _raters(raters: Mapping[str, Any]) -> Table:
    table = _table("rater", "votes", "seconds", "ties", "left", "same again")
    for name, each in raters.items():
        seconds = _UNKNOWN if each["seconds"] is None else f"{each['seconds']:.1f}"
        shares = [_percent(each[key]["mean"]) for key in ("ties", "left", "retest")]
        table.add_row(name, str(each["votes"]), seconds, *shares)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for column in columns:
        is_name = column in ("run", "against", "rater")
        table.add_column(column, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    return table


def _agreement(found: Mapping[str, Any]) -> str:
    n = found["fleiss_kappa"]["n"]
    if not n:
        return "no comparison has two raters"
    measures = [f"{name.replace('_', ' ')} {_number(each)}" for name, each in found.items()]
    return f"{', '.join(measures)}, n {n}"


def _number(each: Mapping[str, Any]) -> str:
    return (
        _UNKNOWN
        if each["mean"] is None
        else f"{each['mean']:.2f} ({_bound(each['low'])} to {_bound(each['high'])})"
    )


def _bound(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.2f}"


def _share(each: Mapping[str, Any] | None) -> str:
    if each is None or each["mean"] is None:
        return _UNKNOWN
    return f"{each['mean']:.0%} ({each['low']:.0%} to {each['high']:.0%})"


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0%}"


def _many(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
