"""Measures how often the checker confirms perturbed scenes, and how often it misses a change.

python benchmarks/checker.py [scenes]        writes benchmarks/results/checker.json
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

from lavibridge.evaluation.stats import wilson_interval
from lavibridge.world.captions import CATEGORIES, sample_captioned_scene
from lavibridge.world.checker import check_picture
from lavibridge.world.detections import ParsedScene
from lavibridge.world.drawing import draw_scene
from lavibridge.world.perturbations import PERTURBATIONS, counterfactuals
from lavibridge.world.scene import Scene

OUT = Path(__file__).parent / "results" / "checker.json"


def main() -> None:
    """Measure, print and write."""
    scenes = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    pairs = [sample_captioned_scene(3, i, category=CATEGORIES[i % len(CATEGORIES)]) for i in range(scenes)]
    agreement: dict[str, dict[str, float]] = {}
    start = time.process_time()
    for name, damage in PERTURBATIONS.items():
        right = 0
        for pair in pairs:
            verdict = check_picture(damage(draw_scene(pair.scene), pair.index), pair.spec)
            right += verdict.all and _attributes(verdict.parsed) == _attributes(pair.scene)
        agreement[name] = _share(right, scenes)
        print(f"{name:<8} {agreement[name]}", flush=True)
    milliseconds = (time.process_time() - start) / (scenes * len(PERTURBATIONS)) * 1000
    tried: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for pair in pairs[: scenes // 5]:
        for name, scene in counterfactuals(pair.scene, pair.spec):
            tried[name] += 1
            accepted[name] += check_picture(draw_scene(scene), pair.spec).all
    escaped = {name: _share(accepted[name], n) for name, n in tried.items()}
    print(escaped)
    result = {"agreement": agreement, "accepted counterfactuals": escaped, "cpu milliseconds": milliseconds}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _attributes(read: ParsedScene | Scene) -> list[tuple[str, str, str, str]]:
    return sorted((thing.shape, thing.color, thing.texture, thing.size) for thing in read.things)


def _share(count: int, n: int) -> dict[str, float]:
    low, high = wilson_interval(count, n)
    return {"n": n, "count": count, "share": count / n, "low": low, "high": high}


if __name__ == "__main__":
    main()
