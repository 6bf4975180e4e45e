"""Compares two evaluations image by image: the same prompts, from the same noises.

    difference = mean over prompts of (ours - theirs), each the mean of the prompt's shared images

The interval is a bootstrap over prompts; p comes from random sign flips. It is an error if the evaluations
differ in suite, version, prompts, seeds or a metric's card, because their numbers are not comparable.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import RunError
from lavibridge.evaluation.provenance import read_results, read_scored_records
from lavibridge.evaluation.records import Record
from lavibridge.evaluation.stats import paired_difference, sign_flip_p

COMPARED_SETTINGS = ("suite", "version", "seed", "prompts")
"""Settings that both evaluations must share; steps and guidance may differ, to compare their effect."""


def compare_evaluations(ours: Path, theirs: Path) -> dict[str, Any]:
    """Compare two folders of `evaluate`; returns the differences by metric and category, as JSON.

    Raises RunError if a folder holds no results or if the two are not comparable.
    """
    a, b = read_comparable_evaluations(ours, theirs)
    shared = [name for name in a["metrics"] if name in b["metrics"] and "all" in a["metrics"][name]]
    if not shared:
        raise RunError(
            f"{ours} and {theirs} share no metric that scores single pictures: evaluate both with the same "
            f"metric"
        )
    for name in shared:
        if a["metrics"][name]["card"] != b["metrics"][name]["card"]:
            raise RunError(
                f"'{name}' is not the same metric in {ours} and {theirs}: their cards differ; evaluate one "
                f"of them again"
            )
    mine, others = read_scored_records(ours, a), read_scored_records(theirs, b)
    pairs = [(mine[key], others[key]) for key in mine if key in others]
    if not pairs:
        raise RunError(
            f"{ours} and {theirs} share no prompt and seed: evaluate them with the same --category, --limit "
            f"and --seed"
        )
    return {
        **{name: a[name] for name in COMPARED_SETTINGS},
        "pictures": len(pairs),
        "unpaired": {"first": len(mine) - len(pairs), "second": len(others) - len(pairs)},
        "metrics": {name: _by_category(name, pairs) for name in shared},
    }


def read_comparable_evaluations(ours: Path, theirs: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Read the results of two folders. Raises RunError if one holds none or they are not comparable."""
    a, b = read_results(ours), read_results(theirs)
    for name in COMPARED_SETTINGS:
        if a.get(name) != b.get(name):
            raise RunError(
                f"{ours} and {theirs} cannot be compared: {name} is {a.get(name)} in the first and "
                f"{b.get(name)} in the second; evaluate one of them again"
            )
    return a, b


def _by_category(metric: str, pairs: list[tuple[Record, Record]]) -> dict[str, Any]:
    scored = [(a, b) for a, b in pairs if metric in a.scores and metric in b.scores]
    found = {"all": _difference(metric, scored)}
    categories = dict.fromkeys(a.category for a, _ in scored)
    if len(categories) > 1:
        for category in categories:
            found[category] = _difference(metric, [(a, b) for a, b in scored if a.category == category])
    return found


def _difference(metric: str, pairs: list[tuple[Record, Record]]) -> dict[str, Any]:
    """The paired difference; n counts prompts. Skips and counts images that only one of the two scored."""
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    unscored = 0
    for a, b in pairs:
        first, second = a.scores[metric], b.scores[metric]
        if first is None or second is None:
            unscored += 1
            continue
        prompt = f"{a.category}/{a.prompt}"
        ours.setdefault(prompt, []).append(first)
        theirs.setdefault(prompt, []).append(second)
    differences = [math.fsum(ours[p]) / len(ours[p]) - math.fsum(theirs[p]) / len(theirs[p]) for p in ours]
    found: dict[str, Any] = paired_difference(ours, theirs).record()
    p = sign_flip_p(differences)
    return {**found, "p": None if math.isnan(p) else p, **({"unscored": unscored} if unscored else {})}
