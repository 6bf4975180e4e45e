"""Prints the ratios of all benchmarks in one table, each with the previous one of the same machine.

python benchmarks/table.py        newest results against previous ones; exits with 1 if one is 10 % worse

A ratio compares two variants that took turns, so a busy machine does not distort it; the table omits seconds,
which it would. Processes differ more than their rounds, so the table compares only results over several
processes. A ratio is worse if its median has fallen by a tenth and the intervals do not overlap.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from record import RESULTS, machine

WORSE = 0.9
"""Share of the former ratio below which a new one is a regression."""
SPENT = "processor time"


@dataclass(frozen=True)
class Ratio:
    """A figure that should not fall: its benchmark, its place in the result, and its label."""

    benchmark: str
    path: tuple[str, ...]
    label: str


def _faster(benchmark: str, where: tuple[str, ...], way: str, label: str) -> Ratio:
    return Ratio(benchmark, (*where, "times faster", way), label)


EXACT = "exact, as many steps"
RATIOS = (
    _faster("train_step", ("processor seconds",), "fused AdamW", "training step, against the published one"),
    *(
        _faster("draw-world", (SPENT,), way, f"drawing, {way}, against the published way")
        for way in (EXACT, "exact", "high", "fast")
    ),
    _faster("draw-proportions", (SPENT,), EXACT, f"drawing, {EXACT}, at Stable Diffusion's proportions"),
    *(
        _faster("draw-diffusers", (f"{count} at a time", SPENT), way, f"{way}, {count} at a time, Diffusers")
        for count in (1, 4)
        for way in (EXACT, "high", "fast")
    ),
    *(
        Ratio("serve", ("throughput", f"eight at a time against {other}", "by processor time"), label)
        for other, label in (
            ("one at a time", "serving eight at a time, against one"),
            ("Bridge.generate", "serving eight at a time, against BridgePipeline"),
        )
    ),
)


def results(benchmark: str) -> list[Mapping[str, Any]]:
    """Return this machine's results of a benchmark, the newest last."""
    files = RESULTS.glob(f"{benchmark}_{machine()['name']}_*.json")
    return sorted(
        (json.loads(file.read_text(encoding="utf-8")) for file in files), key=lambda each: each["time"]
    )


def figure(result: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    """Return a ratio's median and interval over processes; None if the result has none."""
    value: Any = result
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value if isinstance(value, Mapping) and "processes" in value else None


def is_worse(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a ratio has fallen by a tenth and beyond the spread of its processes."""
    return bool(now["median"] < WORSE * before["median"] and now["high"] < before["low"])


def main() -> int:
    """Print the table; return 1 if a ratio has become worse."""
    lines, worse = [], []
    for ratio in RATIOS:
        found = [(each, figure(each, ratio.path)) for each in results(ratio.benchmark)]
        known = [(each["commit"], value) for each, value in found if value is not None]
        if not known:
            lines.append((ratio.label, "not measured", "", ""))
            continue
        (commit, now), before = known[-1], known[-2][1] if len(known) > 1 else None
        change = f"{now['median'] / before['median'] - 1:+.0%}" if before else "first"
        interval = f"{now['low']:.2f} to {now['high']:.2f}, n {now['n']}"
        lines.append((ratio.label, f"{now['median']:.2f}", interval, f"{change} ({commit})"))
        if before and is_worse(now, before):
            worse.append(f"{ratio.label}: {now['median']:.2f} times, {before['median']:.2f} before")
    print("| times faster | median | 95 % interval | since the last result |\n| --- | --- | --- | --- |")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    for each in worse:
        print(f"worse: {each}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
