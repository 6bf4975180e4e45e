"""The scores of a pivot's pairs: what `lavi evaluate` has measured of each, and what follows for the others.

    PIVOT/evaluation/LANGUAGE+VISION/SUITE/results.json

Results count while both halves are the ones that drew the pictures. Only scores that were measured alike
predict others: with the same steps, guidance, quality and seed, and as many prompts of each category.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lavibridge.core.files import file_sha256, read_json
from lavibridge.core.identity import card_hash
from lavibridge.evaluation.additive_logit import LeaveOneOut, Pair, leave_one_out, predict_pairs
from lavibridge.evaluation.provenance import RESULTS_FILE
from lavibridge.evaluation.stats import Estimate
from lavibridge.pivot.folder import PivotFolder
from lavibridge.pivot.half import WEIGHTS

ALL = "all"
"""The score over all categories."""
_SETTINGS = ("suite", "version", "steps", "guidance", "quality", "seed", "seeds")
"""What a score depends on beside the pair."""


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """What was measured of a pair."""

    scores: Mapping[str, Estimate]
    """The share of pictures that are right, by category, and of `all`."""
    conditions: str
    """A hash of the settings and of the number of pictures by category."""


@dataclass(frozen=True, kw_only=True)
class PivotScores:
    """The scores of a category, of every pair that has one."""

    measured: Mapping[Pair, Estimate]
    """Measured alike, as most pairs are."""
    measured_otherwise: Mapping[Pair, Estimate]
    """Measured with other settings or prompts; they predict nothing."""
    predicted: Mapping[Pair, Estimate]
    """What the pairs that were measured alike say of the others."""
    left_out: LeaveOneOut
    """How well they say it."""


def pivot_scores(pivot: PivotFolder, suite: str, metric: str, category: str = ALL) -> PivotScores:
    """Return the scores of all pairs in a category of a suite."""
    weights = {
        (side, name): file_sha256(pivot.place(side, name) / WEIGHTS)
        for side in ("language", "vision")
        for name in pivot.names(side)
    }
    found: dict[Pair, PairScores] = {}
    for language in pivot.names("language"):
        for vision in pivot.names("vision"):
            drawn_by = (weights["language", language], weights["vision", vision])
            scores = _pair_scores(pivot, (language, vision), suite, metric, drawn_by)
            if scores is not None and category in scores.scores:
                found[language, vision] = scores
    usual = _usual_conditions(found, category)
    measured, otherwise = dict[Pair, Estimate](), dict[Pair, Estimate]()
    for pair, scores in found.items():
        (measured if scores.conditions == usual else otherwise)[pair] = scores.scores[category]
    predicted = {pair: each for pair, each in predict_pairs(measured).items() if pair not in otherwise}
    return PivotScores(
        measured=measured,
        measured_otherwise=otherwise,
        predicted=predicted,
        left_out=leave_one_out(measured),
    )


def _pair_scores(
    pivot: PivotFolder, pair: Pair, suite: str, metric: str, drawn_by: tuple[str, str]
) -> PairScores | None:
    """Return what results.json says of a pair; None if there is none, or other halves drew its pictures."""
    path = pivot.evaluation(*pair) / suite / RESULTS_FILE
    results = read_json(path) if path.is_file() else {}
    figures = results.get("metrics", {}).get(metric)
    origin = results.get("bridge", {})
    if figures is None or (origin.get("language_weights"), origin.get("vision_weights")) != drawn_by:
        return None
    named = {**figures["categories"], ALL: figures["all"]}
    counts = {category: each["n"] for category, each in named.items()}
    return PairScores(
        scores={category: read_estimate(each) for category, each in named.items() if each["n"]},
        conditions=card_hash([[results.get(name) for name in _SETTINGS], counts]),
    )


def read_estimate(record: Mapping[str, Any]) -> Estimate:
    """Return the estimate that `Estimate.record` wrote; null is NaN."""
    mean, low, high = (
        math.nan if record[name] is None else float(record[name]) for name in ("mean", "low", "high")
    )
    return Estimate(n=int(record["n"]), mean=mean, low=low, high=high)


def _usual_conditions(found: Mapping[Pair, PairScores], category: str) -> str | None:
    """Return the conditions of most pairs; of equally many, those with the most pictures."""
    pairs = Counter(each.conditions for each in found.values())
    pictures = Counter[str]()
    for each in found.values():
        pictures[each.conditions] += each.scores[category].n
    return max(pairs, key=lambda each: (pairs[each], pictures[each]), default=None)
