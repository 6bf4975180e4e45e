"""Makes metric cards, which list everything that a number depends on, and compares recipes.

{suite, version, metric, hash, card, columns: {label: {n, steps, guidance}}, seed, seeds, prompts}
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lavibridge.core.identity import card_hash
from lavibridge.report.evaluations import EvaluationGroup
from lavibridge.report.run_record import RunRecord


def metric_cards(groups: Sequence[EvaluationGroup]) -> list[dict[str, Any]]:
    """One card per suite, metric and configuration, with the evaluations that share it."""
    found: dict[tuple[int, str, str], dict[str, Any]] = {}
    for number, group in enumerate(groups):
        for column in group.columns:
            for metric, entry in column.results["metrics"].items():
                card = entry.get("card") or {}
                made = found.setdefault(
                    (number, metric, card_hash(card)),
                    {
                        "suite": group.suite,
                        "version": group.version,
                        "metric": metric,
                        "hash": card_hash(card),
                        "model": _find(card, "model"),
                        "identity": _find(card, "id"),
                        "resize": _find(card, "resize"),
                        "seed": column.results.get("seed"),
                        "seeds": column.results.get("seeds"),
                        "prompts": column.results.get("prompts"),
                        "card": card,
                        "columns": {},
                    },
                )
                made["columns"][column.label] = {
                    name: column.results.get(name) for name in ("n", "steps", "guidance")
                }
    return list(found.values())


def differences_between_recipes(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The recipe fields that differ between runs: {name, values}, one value per run."""
    recipes = [dict(_flat(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    rows = [{"name": key, "values": [recipe.get(key) for recipe in recipes]} for key in keys]
    return [row for row in rows if any(value != row["values"][0] for value in row["values"])]


def _flat(mapping: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) for every leaf of nested mappings."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _find(card: Mapping[str, Any], key: str) -> str:
    """All values under a key anywhere in a card, joined; empty if there are none."""
    values = [
        str(value) for path, value in _flat(card) if path.split(".")[-1] == key and isinstance(value, str)
    ]
    return ", ".join(dict.fromkeys(values))
